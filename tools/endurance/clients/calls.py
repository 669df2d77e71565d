"""Requests that are sent once and answered once: single pictures, archives and DICOM objects, over each protocol."""

import base64
import io
import itertools
import json
import struct
import time
import zipfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
from PIL import Image

from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from service.errors import causes
from service.pb.inference import open_inference_pb2 as oip
from tests.support.dicom_objects import dicom, written
from tests.support.pictures import SAMPLES, encoded
from tools.endurance.book import UNCOUNTED, Tally
from tools.endurance.clients.replies import LOST, WORK, Reply, of_grpc, of_http
from tools.endurance.life import Life

DEADLINE_SECONDS = 60.0  # of a single request: two calls that hang for 10 s, and the queue behind them
ARCHIVE_SECONDS = 300.0  # of an archive, which waits for pauses of live streams
PICTURES = itertools.cycle([sample.read_bytes() for sample in SAMPLES])
OPENED = [Image.open(sample).convert("RGB").resize((320, 280)) for sample in SAMPLES]
PARTS = 3  # pictures of an archive, and frames of a study
INFER = "/v2/models/pranet/infer"
CODES = {  # of a request that was not answered
    "rest": ("200", "499", "503", UNCOUNTED),
    "grpc": ("OK", "CANCELLED", "UNAVAILABLE", "DEADLINE_EXCEEDED", UNCOUNTED),
}
NOT_REACHED = "refused a connection by a process that ended"
LOST_CAUSES = ("client-left", "draining", "deadline-exceeded", UNCOUNTED)

Ask = Callable[[Life], Awaitable[Reply]]


@dataclass(frozen=True)
class Kind:
    """A kind of request; ``expected`` names the causes that are no fault."""

    name: str
    transport: str
    ask: Ask
    frames: int = 1
    deadline: float = DEADLINE_SECONDS
    expected: frozenset[str] = frozenset()

    @property
    def expected_codes(self) -> set[str]:
        """Return how the transport counts the expected causes."""
        expected = [each for each in causes() if each.slug in self.expected]
        return {str(each.status) if self.transport == "rest" else each.grpc.name for each in expected}


async def sent(kind: Kind, life: Life, tally: Tally) -> None:
    """Send one request; record its end, and whether it broke a promise."""
    began, retired, swaps = time.monotonic(), life.retired, life.swaps
    try:
        reply = await kind.ask(life)
    except (httpx.HTTPError, grpc.RpcError, OSError) as error:
        reply = of_grpc(error) if isinstance(error, grpc.aio.AioRpcError) else None
        if reply is None:
            _lost(kind, life, tally, began, error)
            return
    ended = time.monotonic()
    reply.note(life.book, kind.name, kind.transport, kind.frames, began, ended)
    tally.add(kind.name, reply.outcome, seconds=None if reply.cause else ended - began)
    for cause in {reply.cause, *reply.parts} - {""} - kind.expected:
        if not (cause == "draining" and life.is_ending(began)):
            life.breaks(f"a request ({kind.name}) ends with {reply.code} {cause}")
    if not reply.is_complete:
        life.breaks(f"a request ({kind.name}) is refused with {reply.code}, without its cause or time to retry")
    if reply.model_id in retired and swaps == life.swaps:  # else they may have come back since
        life.breaks(f"a request ({kind.name}) is answered by weights that were replaced before it was sent")


def _lost(kind: Kind, life: Life, tally: Tally, began: float, error: Exception) -> None:
    ended = time.monotonic()
    if isinstance(error, httpx.ConnectError) and life.ending:
        tally.add(kind.name, NOT_REACHED)
        return
    life.book.note(kind.name, began, ended, **{kind.transport: {*CODES[kind.transport], *kind.expected_codes}})
    life.book.note(f"cause of {kind.name}", began, ended, rejected={*LOST_CAUSES, *kind.expected})
    for _ in range(kind.frames):
        life.book.note(f"frame of {kind.name}", began, ended, work=WORK)
    if isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        tally.add(kind.name, "late by the client's clock")
        life.breaks(f"a request ({kind.name}) is not answered within its deadline")
        return
    cut = (
        life.ending == "SIGKILL" or (life.ending and began >= life.ending_at) or life.server.process.poll() is not None
    )
    tally.add(kind.name, f"cut off by {life.ending or 'an end'}" if cut else LOST)
    if not cut:
        life.breaks(f"a request ({kind.name}) is lost: {type(error).__name__}: {error}")


def over_rest(
    body: Callable[[], bytes], path: str = "/segment", seconds: float = DEADLINE_SECONDS, **headers: str
) -> Ask:
    async def ask(life: Life) -> Reply:
        given = {"x-request-timeout-ms": str(round(seconds * 1e3)), **life.headers}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return of_http(await life.rest.post(path, content=body(), headers=given | named))

    return ask


def over_grpc(body: Callable[[], bytes]) -> Ask:
    async def ask(life: Life) -> Reply:
        request = pb.SegmentRequest(image=body())
        answer = await life.stub.Segment(request, timeout=DEADLINE_SECONDS, metadata=life.site.access.metadata())
        return Reply("OK", model_id=answer.model.model_id)

    return ask


async def infer_over_grpc(life: Life) -> Reply:
    image = next(PICTURES)
    tensor = oip.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1])
    raw = struct.pack("<I", len(image)) + image
    request = oip.ModelInferRequest(model_name="pranet", inputs=[tensor], raw_input_contents=[raw])
    await life.inference.ModelInfer(request, timeout=DEADLINE_SECONDS, metadata=life.site.access.metadata())
    return Reply("OK")


def inference() -> bytes:
    """Return a request of the Open Inference Protocol, whose answer is binary."""
    data = base64.b64encode(next(PICTURES)).decode()
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [data]}
    wanted = {"name": "mask", "parameters": {"binary_data": True}}
    return json.dumps({"inputs": [tensor], "outputs": [wanted]}).encode()


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for number in range(PARTS):
            made.writestr(f"{number}.jpg", next(PICTURES))
    return buffer.getvalue()


def one_colour(colour: str) -> bytes:
    return encoded(Image.new("RGB", (320, 280), colour))


def _always(content: bytes) -> Callable[[], bytes]:
    return lambda: content


def kinds() -> dict[str, Kind]:
    """Return every kind of regular request by its name."""
    dicom_type: dict[str, Any] = {"content_type": "application/dicom"}
    study = over_rest(
        _always(written(dicom(OPENED))), seconds=ARCHIVE_SECONDS, accept="application/dicom", **dicom_type
    )
    zipped = over_rest(archive, "/segment/batch", ARCHIVE_SECONDS, content_type="application/zip")
    made = [
        Kind("REST", "rest", over_rest(lambda: next(PICTURES))),
        Kind("gRPC", "grpc", over_grpc(lambda: next(PICTURES))),
        Kind("inference protocol over REST", "rest", over_rest(inference, INFER, content_type="application/json")),
        Kind("inference protocol over gRPC", "grpc", infer_over_grpc),
        Kind("DICOM object", "rest", over_rest(_always(written(dicom(OPENED[:1]))), **dicom_type)),
        Kind("DICOM study", "rest", study, PARTS, ARCHIVE_SECONDS),
        Kind("zip", "rest", zipped, PARTS, ARCHIVE_SECONDS),
    ]
    return {kind.name: kind for kind in made}


def faults() -> dict[str, tuple[Kind, Kind]]:
    """Return requests whose inference fails or hangs (see tests/support/servers/faulty_server.py), REST and gRPC."""
    expected = frozenset({"inference-failed"})
    pictures = {"fails": _always(one_colour("yellow")), "hangs": _always(one_colour("lime"))}
    return {
        how: (
            Kind(f"inference that {how}, REST", "rest", over_rest(picture), expected=expected),
            Kind(f"inference that {how}, gRPC", "grpc", over_grpc(picture), expected=expected),
        )
        for how, picture in pictures.items()
    }
