"""How ``pranet serve`` ends: accepted requests are answered first, on both protocols."""

import asyncio
import contextlib
import json
import os
import pty
import re
import signal
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image
from websockets.asyncio.client import connect

from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc
from service import app
from service.app import INFERENCE_DEAD, StartError
from service.batching.batcher import MAX_ABANDONED
from service.runtime import group_of
from service.settings import Settings
from tests.support import processes
from tests.support.patching import Patches
from tests.support.pictures import SAMPLES, encoded, mask_of
from tests.support.predictors import RedPredictor
from tests.support.processes import clients, pranet
from tests.support.servers.name_server import namespaces
from tests.support.serving import PATIENCE, serving, until
from tests.support.streaming import CONFIG, frame
from tests.support.websocket import packed

CALLERS = 12  # of each protocol: more than one batch, so that some wait when the signal comes
IMAGE = SAMPLES[0].read_bytes()
CUT_OFF = re.compile("cut off unanswered after 1 s: ([0-9]+); raise PRANET_DRAIN_SECONDS")
NOT_SENT = "did not send their whole request: 1; the service did not hold them up"
HANGING = encoded(Image.new("RGB", (8, 8), "lime"))  # the fake server never answers it
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def in_flight(rest: httpx.AsyncClient) -> int:
    text = (await rest.get("/metrics")).text
    return int(float(text.rpartition("\npranet_in_flight ")[2].split()[0]))


async def ask(rest: httpx.AsyncClient, image: bytes = IMAGE) -> tuple[float, bytes]:
    answer = (await rest.post("/segment", content=image)).raise_for_status()
    return time.monotonic(), answer.content


async def call(channel: grpc.aio.Channel, image: bytes = IMAGE) -> tuple[float, bytes]:
    answer = await pb_grpc.SegmentationServiceStub(channel).Segment(pb.SegmentRequest(image=image), timeout=120)
    return time.monotonic(), answer.png


async def load(rest: httpx.AsyncClient, channel: grpc.aio.Channel) -> list[asyncio.Task[tuple[float, bytes]]]:
    """Start every caller, and wait until the service has accepted them all."""
    work = [asyncio.create_task(ask(rest)) for _ in range(CALLERS)]
    work += [asyncio.create_task(call(channel)) for _ in range(CALLERS)]
    while await in_flight(rest) + sum(task.done() for task in work) < len(work):
        pass
    return work


async def unready_at(rest: httpx.AsyncClient) -> float:
    """Return when readiness was first seen to be false."""
    while (await rest.get("/readyz")).status_code == 200:
        pass
    return time.monotonic()


async def not_serving_at(watch: Any) -> float:
    """Return when health was first seen to be false."""
    while (await watch.read()).status != NOT_SERVING:
        pass
    return time.monotonic()


@pytest.mark.slow
async def test_sigterm_under_load_turns_readiness_off_answers_what_was_accepted_and_ends_with_0() -> None:
    with processes.server("--drain-seconds", 120, "--request-timeout-ms", 120_000) as server:
        async with clients(server) as (rest, channel), asyncio.timeout(180):
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status != NOT_SERVING
            work = await load(rest, channel)
            signs = asyncio.gather(unready_at(rest), not_serving_at(watch))
            server.process.send_signal(signal.SIGTERM)
            seen = await signs
            refused = await rest.post("/segment", content=IMAGE)
            answers = await asyncio.gather(*work)
            last = max(moment for moment, _ in answers)
            assert max(seen) < last
            assert (refused.status_code, refused.json()["type"]) == (503, "urn:pranet:error:draining")
            assert all(mask_of(png).any() for _, png in answers)
            assert await asyncio.to_thread(server.process.wait, PATIENCE) == 0


@pytest.mark.slow
async def test_a_second_signal_ends_at_once() -> None:
    with processes.fake_server("--max-batch-size", 1) as server:
        async with clients(server) as (rest, channel), asyncio.timeout(PATIENCE):
            work = [asyncio.create_task(ask(rest, HANGING)), asyncio.create_task(call(channel, HANGING))]
            while await in_flight(rest) < len(work):
                pass
            server.process.send_signal(signal.SIGTERM)
            await unready_at(rest)
            server.process.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(server.process.wait, PATIENCE) == 128 + signal.SIGINT
            outcomes = await asyncio.gather(*work, return_exceptions=True)
    assert all(isinstance(outcome, Exception) for outcome in outcomes)


async def status(rest: httpx.AsyncClient, image: bytes) -> int:
    return (await rest.post("/segment", content=image)).status_code


@pytest.mark.slow
@pytest.mark.one_process  # several go on without it
async def test_a_device_that_hangs_for_good_ends_the_process_with_3_after_all_answers_that_can_be_given() -> None:
    lime, red = (encoded(Image.new("RGB", (8, 8), colour)) for colour in ("lime", "red"))
    with processes.fake_server("--max-batch-size", 1, HANG_SECONDS="2") as server:
        async with clients(server) as (rest, _), asyncio.timeout(PATIENCE):
            hanging = [asyncio.create_task(status(rest, lime)) for _ in range(MAX_ABANDONED)]
            while await in_flight(rest) + sum(task.done() for task in hanging) < MAX_ABANDONED:
                pass
            behind = [asyncio.create_task(status(rest, red)) for _ in range(3)]
            assert await asyncio.gather(*hanging) == [500] * MAX_ABANDONED
            assert await asyncio.gather(*behind) == [200] * 3
            assert await asyncio.to_thread(server.process.wait) == INFERENCE_DEAD


@pytest.mark.slow
async def test_an_answer_that_is_read_slowly_is_sent_to_its_end() -> None:
    picture = encoded(Image.new("RGB", (4000, 3000), "red"))
    image = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 4 + len(picture)}}
    outputs = [{"name": "probability", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": [image], "outputs": outputs}).encode()
    content = head + struct.pack("<I", len(picture)) + picture
    with processes.fake_server() as server:
        async with clients(server) as (rest, _), asyncio.timeout(PATIENCE):
            headers = {"inference-header-content-length": str(len(head)), "accept-encoding": "identity"}
            url = "/v2/models/pranet/infer"
            async with rest.stream("POST", url, content=content, headers=headers) as answer:
                server.process.send_signal(signal.SIGTERM)
                await asyncio.sleep(2)  # longer than a server waits that does not care
                received = len(await answer.aread())
        assert received == int(answer.headers["content-length"]) > 48_000_000
        assert await asyncio.to_thread(server.process.wait, PATIENCE) == 0


@pytest.mark.slow
async def test_a_service_whose_terminal_is_gone_drains_and_ends() -> None:
    leader, follower = pty.openpty()
    with processes.fake_server(stdin=follower) as server:
        os.close(follower)
        os.close(leader)
        server.process.send_signal(signal.SIGHUP)
        assert await asyncio.to_thread(server.process.wait, PATIENCE) == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_a_service_whose_terminal_is_gone_during_the_start_ends_at_once(number: int, tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    with processes.starting("--processes", number, weights=tmp_path / "weights", stdin=follower) as process:
        os.close(follower)
        os.close(leader)
        for each in (process.pid, *processes.children_of(process)):  # as the kernel tells the whole group
            os.kill(each, signal.SIGHUP)
        assert process.wait(PATIENCE) == 128 + signal.SIGHUP


@pytest.mark.parametrize("port", ["port", "grpc_port"])
async def test_a_taken_port_is_refused_with_advice(port: str, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(StartError) as refused:
        async with serving(**{port: taken.getsockname()[1]}):
            pass
    name = port.replace("_", "-")
    assert f"(Address already in use); choose another: --{name}, or PRANET_{port.upper()}" in str(refused.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("host", ["999.1.1.1", "192.0.2.1", "2001:db8::1"])
async def test_a_host_that_is_no_address_of_the_machine_is_refused_with_advice(host: str) -> None:
    with pytest.raises(StartError, match=f"^{host} cannot be listened on .*: --host, or PRANET_HOST$"):
        async with serving(host=host):
            pass


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["--grpc-port", "--host", "--api-tokens-file", "--tls-cert"])
def test_a_setting_that_cannot_work_ends_the_start_with_2_and_one_line_before_any_weights_are_loaded(
    wrong: str, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = {
            "--grpc-port": ["--port", 0, "--grpc-port", taken.getsockname()[1]],
            "--host": ["--host", "nowhere.invalid"],
            "--api-tokens-file": ["--api-tokens-file", tmp_path / "gone"],
            "--tls-cert": ["--tls-cert", tmp_path / "gone", "--tls-key", tmp_path / "gone"],
        }[wrong]
        done = pranet("serve", "--weights", tmp_path / "no-weights", *given)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("pranet: ")
    assert "weights" not in line


@pytest.mark.slow
def test_ctrl_c_ends_a_start_at_once_that_waits_for_a_file(tmp_path: Path) -> None:
    with processes.starting(weights=tmp_path / "weights") as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 128 + signal.SIGINT


@pytest.mark.slow
@pytest.mark.skipif(not namespaces(), reason="this machine lets nobody make a first process")
@pytest.mark.parametrize("number", [1, 2])
def test_sigterm_ends_the_start_of_the_first_process_of_a_container(number: int, tmp_path: Path) -> None:
    program = ("unshare", "--map-root-user", "--pid", "--fork", "--kill-child", *processes.PROGRAM)
    with processes.starting("--processes", number, weights=tmp_path / "weights", program=program) as unshared:
        (first,) = processes.children_of(unshared)
        os.kill(first, signal.SIGTERM)
        assert unshared.wait(PATIENCE) == 128 + signal.SIGTERM


async def test_a_signal_ends_the_service_at_once_until_it_is_warm(patched: Patches) -> None:
    ends: list[int] = []
    begun, warm = threading.Event(), threading.Event()

    def warm_up(max_batch_size: int) -> None:
        begun.set()
        warm.wait(PATIENCE)

    patched(app, "load_predictor", lambda _: RedPredictor(warm_up=warm_up))
    patched("service.signals.os", "_exit", ends.append)
    settings = Settings.model_validate({"port": 0, "grpc_port": 0, "device": "cpu"})
    serving = asyncio.create_task(app._serve(settings, group_of(settings, 1), None))
    try:
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: bool(ends))
    finally:
        warm.set()
        await serving
    assert ends == [128 + signal.SIGTERM]


@pytest.mark.slow
async def test_a_file_that_never_answers_does_not_hold_the_end_up(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    os.mkfifo(weights)
    with processes.fake_server("--weights", weights, "--drain-seconds", 1) as server:
        async with clients(server) as (rest, _), asyncio.timeout(PATIENCE):
            asked = asyncio.create_task(rest.post("/segment?output=maps", content=IMAGE))
            with os.fdopen(await asyncio.to_thread(processes.read_by_another, weights), "wb"):
                server.process.send_signal(signal.SIGTERM)
                assert (await asked).status_code == 503
                assert await asyncio.to_thread(server.process.wait, PATIENCE) == 1


@pytest.mark.slow
async def test_a_browser_that_leaves_during_the_drain_does_not_break_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as stderr, processes.fake_server("--drain-seconds", 60, stderr=stderr) as server:
        async with clients(server) as (rest, _), asyncio.timeout(PATIENCE):
            async with connect(f"{server.url.replace('http', 'ws')}/stream", proxy=None) as socket:
                await socket.send("{}")
                await socket.send(packed(0, HANGING))
                while not await in_flight(rest):
                    pass
                server.process.send_signal(signal.SIGTERM)
                await unready_at(rest)
                socket.transport.abort()
            assert await asyncio.to_thread(server.process.wait, PATIENCE) == 0
    assert log.read_text() == ""


async def segmented(stub: pb_grpc.SegmentationServiceStub) -> None:
    await stub.Segment(pb.SegmentRequest(image=HANGING))


async def streamed(stub: pb_grpc.SegmentationServiceStub) -> None:
    stream = stub.SegmentStream()
    await stream.write(CONFIG)
    await stream.write(frame(0, image=HANGING))
    await stream.read()


async def posted(rest: httpx.AsyncClient) -> dict[str, Any]:
    answer = await rest.post("/segment", content=HANGING)
    problem: dict[str, Any] = answer.json()
    return problem | {"retry-after": answer.headers["retry-after"]}


async def uploaded_half(server: processes.Server, sent: asyncio.Event) -> bytes:
    """Send half a picture; return the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
    with contextlib.closing(writer):
        writer.write(b"POST /segment HTTP/1.1\r\nHost: pranet\r\nContent-Length: 9999\r\n\r\nhalf")
        await writer.drain()
        sent.set()
        return await reader.read()


async def over_a_websocket(server: processes.Server) -> str:
    async with connect(f"{server.url.replace('http', 'ws')}/stream", proxy=None) as socket:
        await socket.send("{}")
        await socket.send(packed(0, HANGING))
        return str(json.loads(await socket.recv())["type"])


@pytest.mark.slow
async def test_what_the_end_cuts_off_is_told_so_in_the_form_of_all_errors(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        log.open("w") as stderr,
        processes.fake_server("--drain-seconds", "1", "--request-timeout-ms", "60000", stderr=stderr) as server,
    ):
        async with clients(server) as (rest, channel), asyncio.timeout(PATIENCE):
            stub = pb_grpc.SegmentationServiceStub(channel)
            calls = [asyncio.create_task(segmented(stub)), asyncio.create_task(streamed(stub))]
            request, socket = asyncio.create_task(posted(rest)), asyncio.create_task(over_a_websocket(server))
            sent = asyncio.Event()
            upload = asyncio.create_task(uploaded_half(server, sent))
            await sent.wait()
            while await in_flight(rest) < 4:
                pass
            await in_flight(rest)  # by then, it has read what was sent before
            server.process.send_signal(signal.SIGTERM)
            problem = await request
            assert (problem["type"], problem["status"]) == ("urn:pranet:error:draining", 503)
            assert problem["retry-after"]
            assert await socket == "urn:pranet:error:draining"
            head, _, body = (await upload).rpartition(b"\r\n\r\n")
            assert b" 503 " in head.split(b"\r\n")[0]
            assert json.loads(body)["type"] == "urn:pranet:error:draining"
            for call in calls:
                with pytest.raises(grpc.aio.AioRpcError) as ended:
                    await call
                given = dict(ended.value.trailing_metadata() or ())
                assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
                assert (given["pranet-error"], given["retry-after"]) == ("draining", problem["retry-after"])
            assert await asyncio.to_thread(server.process.wait, PATIENCE) == 1
    lines = log.read_text().splitlines()
    told = [CUT_OFF.search(line) for line in lines]
    assert sum(int(each[1]) for each in told if each) == 4
    assert [line.partition("whose clients ")[2] for line, each in zip(lines, told, strict=True) if not each] == [
        NOT_SENT
    ]
