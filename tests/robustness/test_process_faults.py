"""What becomes of clients when the process is killed, and of the process when nobody can read what it writes."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from PIL import Image

from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc
from tests.support import processes
from tests.support.pictures import ROOT, encoded, mask_of, red_box
from tests.support.processes import Server

pytestmark = pytest.mark.slow

PICTURE = encoded(red_box(64, 48, (8, 8, 40, 40)))
ENDLESS = encoded(Image.new("RGB", (64, 48), "lime"))  # keeps the device
IN_TIME = 20.0  # seconds


@pytest.fixture
def server() -> Iterator[Server]:
    with processes.fake_server() as running:
        yield running


def kill(server: Server) -> None:
    """Kill every process of it, the one that would replace others first."""
    others = processes.children(server)
    server.process.kill()
    assert server.process.wait(IN_TIME) == -signal.SIGKILL
    for each in others:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


async def on_the_device(server: Server, frames: int) -> None:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as rest, asyncio.timeout(IN_TIME):
        while f"pranet_in_flight {frames}.0" not in (await rest.get("/metrics")).text:  # noqa: ASYNC110 - in another process
            await asyncio.sleep(0.02)


def test_a_client_in_the_middle_of_its_picture_sees_the_connection_end(server: Server) -> None:
    port = httpx.URL(server.url).port
    with socket.create_connection(("127.0.0.1", port), timeout=IN_TIME) as client:
        client.sendall(b"POST /segment HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nhalf of it")
        kill(server)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""


async def test_a_client_whose_picture_is_on_the_device_is_told_over_both_protocols(server: Server) -> None:
    async with (
        httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=IN_TIME) as rest,
        grpc.aio.insecure_channel(server.grpc_address) as channel,
    ):
        asked = asyncio.create_task(rest.post("/segment", content=ENDLESS))
        stub = pb_grpc.SegmentationServiceStub(channel)
        called = asyncio.ensure_future(stub.Segment(pb.SegmentRequest(image=ENDLESS), timeout=IN_TIME))
        await on_the_device(server, 2)
        kill(server)
        with pytest.raises(httpx.TransportError):
            await asked
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await called
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_client_in_the_middle_of_an_archive_can_tell_that_it_is_not_whole(server: Server) -> None:
    files = [("file", picture) for picture in (*20 * [PICTURE], ENDLESS)]  # more than a batch
    async with (
        httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=IN_TIME) as rest,
        rest.stream("POST", "/segment/batch", files=files) as answer,
    ):
        lines = answer.aiter_lines()
        assert '"status": 200' in await anext(lines)
        kill(server)
        with pytest.raises(httpx.TransportError):
            assert all(['"status": 200' in line async for line in lines])


def test_after_a_kill_the_service_starts_on_the_same_ports(server: Server) -> None:
    kill(server)
    ports = ("--port", httpx.URL(server.url).port, "--grpc-port", server.grpc_address.rpartition(":")[2])
    with processes.fake_server(*ports) as again:
        assert again.url == server.url
        answer = httpx.post(f"{again.url}/segment", content=PICTURE, trust_env=False)
        assert mask_of(answer.content).any()


def test_a_full_disk_under_its_output_and_log_stops_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free, socket.create_server(("127.0.0.1", 0)) as grpc_free:
        port, grpc_port = (each.getsockname()[1] for each in (free, grpc_free))
    command = [*processes.FAKE_PREDICTOR, "serve", "--port", port, "--grpc-port", grpc_port, "--log-level", "debug"]
    environment = processes._environment({})
    with (
        Path("/dev/full").open("w") as full,
        subprocess.Popen(map(str, command), cwd=ROOT, env=environment, stdout=full, stderr=full) as process,
    ):
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url)
        assert mask_of(httpx.post(f"{url}/segment", content=PICTURE, trust_env=False).content).any()
        process.terminate()
        assert process.wait(IN_TIME) == 0


def wait_until_ready(url: str) -> None:
    until = time.monotonic() + processes.START_SECONDS
    while time.monotonic() < until:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz", trust_env=False).is_success:
                return
        time.sleep(0.05)
    raise AssertionError("it is not ready in time")
