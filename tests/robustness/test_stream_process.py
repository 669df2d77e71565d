"""Streams between processes that are stopped or killed."""

import asyncio
import signal
import sys

import grpc
import httpx
import pytest

from pranet_client.errors import ERROR_METADATA_KEY
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc
from tests.support import processes
from tests.support.pictures import ROOT, SAMPLES
from tests.support.processes import Server
from tests.support.serving import PATIENCE

pytestmark = pytest.mark.slow

FRAME = pb.StreamRequest(frame=pb.StreamFrame(frame_id=1, image=SAMPLES[0].read_bytes()))


async def test_on_sigterm_an_open_stream_gets_its_answers_and_then_unavailable() -> None:
    with processes.server() as running:
        async with asyncio.timeout(3 * PATIENCE), grpc.aio.insecure_channel(running.grpc_address) as channel:
            call = pb_grpc.SegmentationServiceStub(channel).SegmentStream()
            await call.write(pb.StreamRequest(config=pb.StreamConfig(policy=pb.POLICY_EVERY)))
            await call.write(FRAME)
            await call.read()
            for _ in range(3):
                await call.write(FRAME)
            async with httpx.AsyncClient(base_url=running.url, trust_env=False) as rest:
                while 'pranet_frames_received_total{slot="0"} 4.0' not in (await rest.get("/metrics")).text:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            running.process.send_signal(signal.SIGTERM)
            for _ in range(3):
                assert (await call.read()).WhichOneof("outcome") == "mask"
            assert await call.code() is grpc.StatusCode.UNAVAILABLE
            assert dict(await call.trailing_metadata())[ERROR_METADATA_KEY] == "draining"
        assert running.process.wait(PATIENCE) == 0


async def test_a_client_process_that_is_killed_frees_its_stream(server: Server) -> None:
    command = ("-m", "service.commands.main", "stream", "demo:", "--server", server.grpc_address)
    client = await asyncio.create_subprocess_exec(sys.executable, *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(3 * PATIENCE), httpx.AsyncClient(base_url=server.url, trust_env=False) as rest:

        async def until(line: str) -> None:
            while line not in (await rest.get("/metrics")).text:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

        await until("pranet_streams_active 1.0")
        client.kill()
        await client.wait()
        await until("pranet_streams_active 0.0")
        await until("pranet_in_flight 0.0")
