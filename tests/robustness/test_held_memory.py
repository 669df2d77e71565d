"""A large message is let go with its answer, whatever that is and whoever carries it."""

import asyncio
import contextlib
import json
import math
from collections.abc import Awaitable, Callable, Iterator

import grpc
import httpx
import pytest
from PIL import Image
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc
from service.pb.inference import open_inference_pb2 as inference
from service.pb.inference import open_inference_pb2_grpc as inference_grpc
from service.rest.websocket_messages import LENGTH
from tests.support import processes
from tests.support.pictures import encoded
from tests.support.processes import Server
from tests.support.streaming import EVERY, frame

pytestmark = pytest.mark.slow

MEBIBYTE = 2**20
TIMES = 12
ALLOCATED = "allocated_bytes"  # of the server with KEEP_GARBAGE
NOISE = 1  # messages
LITTLE = 100_000  # bytes
IN_TIME = 20.0  # seconds
UNLIMITED = (("grpc.max_receive_message_length", -1),)
GOOD = encoded(Image.new("RGB", (1400, 1400)), "BMP")  # of 6 MB
VARIABLES = {
    "KEEP_GARBAGE": "1",
    "PRANET_MAX_IMAGE_BYTES": str(8 * MEBIBYTE),
}

Send = Callable[[Server, bytes], Awaitable[object]]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with processes.fake_server(**VARIABLES) as running:
        yield running


async def rest(server: Server, picture: bytes) -> None:
    async with httpx.AsyncClient(trust_env=False, verify=False, timeout=60) as client:
        await client.post(f"{server.url}/segment", content=picture)


async def unary(server: Server, picture: bytes) -> None:
    async with grpc.aio.insecure_channel(server.grpc_address) as channel:
        await pb_grpc.SegmentationServiceStub(channel).Segment(pb.SegmentRequest(image=picture))


async def stream(server: Server, picture: bytes) -> None:
    async with grpc.aio.insecure_channel(server.grpc_address) as channel:
        frames = [frame(number, image=picture) for number in range(3)]
        call = pb_grpc.SegmentationServiceStub(channel).SegmentStream(iter([EVERY, *frames]))
        await anext(aiter(call))
        call.cancel()


def inferred(picture: bytes) -> inference.ModelInferRequest:
    tensor = inference.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1])
    content = LENGTH.pack(len(picture)) + picture
    return inference.ModelInferRequest(model_name="pranet", inputs=[tensor], raw_input_contents=[content])


async def infer(server: Server, picture: bytes) -> None:
    async with grpc.aio.insecure_channel(server.grpc_address, UNLIMITED) as channel:
        await inference_grpc.GRPCInferenceServiceStub(channel).ModelInfer(inferred(picture))


async def infer_stream(server: Server, picture: bytes) -> None:
    async with grpc.aio.insecure_channel(server.grpc_address, UNLIMITED) as channel:
        call = inference_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(iter([inferred(picture)] * 3))
        await anext(aiter(call))
        call.cancel()


async def websocket(server: Server, picture: bytes) -> None:
    head = json.dumps({"frame_id": 1}).encode()
    address = server.url.replace("http", "ws") + "/stream"
    async with connect(address, proxy=None, compression=None, max_size=None) as socket:
        await socket.send(json.dumps({"policy": "every"}))
        for _ in range(3):
            await socket.send(LENGTH.pack(len(head)) + head + picture)
        await socket.recv()


PICTURES = {  # and what the service counts at least once for each
    "answered": (GOOD, ("pranet_decodes_total",)),
    "no picture": (
        bytes(6 * MEBIBYTE),
        ("pranet_decodes_total", 'pranet_rejected_total{reason="unsupported-image"}'),  # by its bytes, or by Pillow
    ),
    "too large": (bytes(12 * MEBIBYTE), ('pranet_rejected_total{reason="too-many-bytes"}',)),
}


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("send", [rest, unary, stream, infer, infer_stream, websocket])
async def test_a_large_message_is_let_go_once_its_call_is_over(server: Server, send: Send, kind: str) -> None:
    picture, counted = PICTURES[kind]
    for _ in range(3):  # until caches are full
        await _sent(server, send, picture)
    before, count = await _allocated(server), await _metrics(server, *counted)
    for _ in range(TIMES):
        await _sent(server, send, picture)
    assert await _metrics(server, *counted) - count >= TIMES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(IN_TIME):
            while (kept := (await _metrics(server, ALLOCATED) - before) / len(picture)) >= NOISE:  # noqa: ASYNC110
                await asyncio.sleep(0.2)  # a decode ends after its call
    print(f"\n{send.__name__}, {kind}: {kept:.1f} of {TIMES} messages kept", end="")
    assert kept < NOISE


async def _sent(server: Server, send: Send, picture: bytes) -> None:
    """Send a message, or three in a stream, and wait until the service has done with them."""
    with contextlib.suppress(grpc.aio.AioRpcError, ConnectionClosed):
        await send(server, picture)
    async with asyncio.timeout(IN_TIME):
        while await _metrics(server, "pranet_streams_active", "pranet_in_flight"):  # noqa: ASYNC110 - in another process
            await asyncio.sleep(0.05)


async def _allocated(server: Server) -> float:
    """Return the bytes that a server has allocated, once they change no more."""
    last = math.inf
    async with asyncio.timeout(IN_TIME):
        while abs(last - (last := await _metrics(server, ALLOCATED))) > LITTLE:  # noqa: ASYNC110 - in another process
            await asyncio.sleep(0.5)
    return last


async def _metrics(server: Server, *samples: str) -> float:
    """Return the sum of these samples."""
    async with httpx.AsyncClient(trust_env=False, verify=False, timeout=60) as client:
        lines = (await client.get(f"{server.url}/metrics")).text.splitlines()
    found = dict(line.rsplit(" ", 1) for line in lines)
    return sum(float(found.get(sample, 0)) for sample in samples)
