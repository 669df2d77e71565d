"""What slow clients send: little at a time, or requests with more answers than the buffers on the way hold."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Coroutine
from struct import pack
from typing import Any

import numpy as np
from PIL import Image
from websockets.asyncio.client import ClientConnection

from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from service.pb.inference import open_inference_pb2 as oip
from tests.support.pictures import encoded, red_box
from tests.support.websocket import packed

SHORT_SECONDS = 0.3
SIDE = 2048  # pixels, of a small file whose mask has 512 KiB
LARGE = encoded(red_box(SIDE, SIDE, (0, 0, SIDE, SIDE)))
FRAMES = 100  # far more answers than any buffer on the way holds


@contextlib.asynccontextmanager
async def meanwhile(sending: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Send inside the block, to its end or not."""
    task = asyncio.create_task(sending)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def trickle(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Send byte by byte."""
    with contextlib.suppress(ConnectionError):
        for byte in data:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(SHORT_SECONDS / 10)


def noise(side: int) -> bytes:
    """Draw a picture of noise, whose overlay has some 2 bytes for each pixel."""
    pixels = np.random.default_rng(0).integers(0, 64, (side, side, 3), np.uint8)
    pixels[..., 0] = 255  # red, which is the polyp of the fake predictor
    return encoded(Image.fromarray(pixels), "JPEG")


def single(side: int) -> bytes:
    """Make a request for the overlay of a picture of noise."""
    return _posted("/segment", 1, side)


def archive(pictures: int, side: int) -> bytes:
    """Make a request for overlays of pictures of noise."""
    return _posted("/segment/batch", pictures, side)


def _posted(path: str, pictures: int, side: int) -> bytes:
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + noise(side) + b"\r\n"
    body = part * pictures + b"--b--\r\n"
    head = f"POST {path}?output=overlay HTTP/1.1\r\nHost: pranet\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n".encode() + body


def inference(*outputs: str) -> oip.ModelInferRequest:
    """Make a request of the Open Inference Protocol for outputs of a large picture."""
    image = oip.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1])
    return oip.ModelInferRequest(
        model_name="pranet",
        inputs=[image],
        outputs=[oip.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs],
        raw_input_contents=[pack("<I", len(LARGE)) + LARGE],
    )


async def frames_over_grpc(call: Any) -> None:
    """Send large frames over ``SegmentStream``."""
    await call.write(pb.StreamRequest(config=pb.StreamConfig(policy=pb.POLICY_EVERY, mask_format=pb.MASK_FORMAT_BITS)))
    for number in range(FRAMES):
        await call.write(pb.StreamRequest(frame=pb.StreamFrame(frame_id=number, image=LARGE)))


async def frames_without_end(call: Any) -> None:
    """Send frames over ``SegmentStream`` as a camera would."""
    picture = noise(SIDE // 4)
    await call.write(pb.StreamRequest(config=pb.StreamConfig()))
    for number in itertools.count():
        await call.write(pb.StreamRequest(frame=pb.StreamFrame(frame_id=number, image=picture)))
        await asyncio.sleep(SHORT_SECONDS / 20)


async def inferences(call: Any) -> None:
    """Send large pictures over ``ModelStreamInfer``."""
    request = inference()
    for _ in range(FRAMES):
        await call.write(request)


async def frames_over_websocket(opened: ClientConnection) -> None:
    """Send large frames over a WebSocket."""
    await opened.send(json.dumps({"policy": "every", "mask_format": "bits"}))
    for number in range(FRAMES):
        await opened.send(packed(number, LARGE))
