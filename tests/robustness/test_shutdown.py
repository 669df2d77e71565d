"""How ``pranet serve`` ends: accepted requests are answered first, on both protocols."""

import asyncio
import json
import os
import pty
import signal
import socket
import struct
import time
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image

from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc
from service.app import INFERENCE_DEAD, StartError
from service.batching.batcher import MAX_ABANDONED
from tests.support import processes
from tests.support.pictures import SAMPLES, encoded, mask_of
from tests.support.processes import clients, pranet
from tests.support.serving import PATIENCE, serving

CALLERS = 12  # of each protocol: more than one batch, so that some wait when the signal comes
IMAGE = SAMPLES[0].read_bytes()
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def in_flight(rest: httpx.AsyncClient) -> int:
    text = (await rest.get("/metrics")).text
    return int(float(text.rpartition("\npranet_in_flight ")[2].split()[0]))


async def ask(rest: httpx.AsyncClient) -> tuple[float, bytes]:
    answer = (await rest.post("/segment", content=IMAGE)).raise_for_status()
    return time.monotonic(), answer.content


async def call(channel: grpc.aio.Channel) -> tuple[float, bytes]:
    answer = await pb_grpc.SegmentationServiceStub(channel).Segment(pb.SegmentRequest(image=IMAGE), timeout=120)
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
    with processes.server("--drain-seconds", 60) as server:
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
    with processes.server("--max-batch-size", 1) as server:
        async with clients(server) as (rest, channel), asyncio.timeout(180):
            work = await load(rest, channel)
            server.process.send_signal(signal.SIGTERM)
            await unready_at(rest)
            server.process.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(server.process.wait, PATIENCE) == 128 + signal.SIGINT
            outcomes = await asyncio.gather(*work, return_exceptions=True)
    assert any(isinstance(outcome, Exception) for outcome in outcomes)


async def status(rest: httpx.AsyncClient, image: bytes) -> int:
    return (await rest.post("/segment", content=image)).status_code


@pytest.mark.slow
async def test_a_device_that_hangs_for_good_ends_the_process_with_3_after_all_answers_that_can_be_given() -> None:
    lime, red = (encoded(Image.new("RGB", (8, 8), colour)) for colour in ("lime", "red"))
    with processes.fake_server("--max-batch-size", 1) as server:
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
            headers = {"inference-header-content-length": str(len(head))}
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
    with processes.server(stdin=follower) as server:
        os.close(follower)
        os.close(leader)
        server.process.send_signal(signal.SIGHUP)
        assert await asyncio.to_thread(server.process.wait, PATIENCE) == 0


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
def test_serve_ends_with_2_and_one_line_when_a_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = pranet("serve", "--port", 0, "--grpc-port", taken.getsockname()[1], "--log-level", "error")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_a_request_that_the_end_cuts_off_is_told_so_in_the_form_of_all_errors() -> None:
    head = b"POST /segment HTTP/1.1\r\nHost: pranet\r\nContent-Type: image/jpeg\r\nContent-Length: 9999\r\n\r\nhalf"
    with processes.fake_server("--drain-seconds", "1") as server:
        port = int(server.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
            client.sendall(head)
            time.sleep(0.3)  # until it is being read
            server.process.send_signal(signal.SIGTERM)
            answer = client.makefile("rb").read()
    status, body = answer.split(b"\r\n", 1)[0], answer.rpartition(b"\r\n\r\n")[2]
    assert b" 503 " in status
    assert json.loads(body)["type"] == "urn:pranet:error:draining"
