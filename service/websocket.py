"""``WS /stream``: the same stream as over gRPC, for browsers.

The first message is text, the configuration as JSON. Then every frame is one binary message, and so is every answer:

    4 bytes    length of the JSON, little-endian
    JSON       frame: {frame_id, capture_time_us?, raw?: {format, width, height, stride}}
               answer: {frame_id, outcome, age_ms, window_ms, ...}
    the rest   frame: the picture; answer: the mask, if there is one

Browsers cannot send headers with it: they offer the subprotocols ``pranet.v1`` and ``pranet.bearer.TOKEN``. Who is let
in gets ``pranet.v1`` back, who is not an HTTP 401.

The text ``{"end": true}`` asks for the answers that are still open. What ends the stream otherwise is told in a last
text message, an RFC 9457 problem, before the connection is closed.
"""

import asyncio
import contextlib
import json
import logging
import struct
import time
from collections.abc import AsyncIterator
from typing import Any, Literal
from urllib.parse import urlsplit

from fastapi import WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.batcher import Priority
from service.codec import PixelFormat, RawPicture
from service.core import Service
from service.errors import ClientLeft, InternalError, InvalidParameter, InvalidRequest, ServiceError
from service.frame import MaskFormat, Options, Output
from service.observe import request_id_from
from service.regions import ROI_PATTERN
from service.schemas import PolypBody, PresenceBody
from service.segmenter import Segmentation
from service.stream import MAX_SMOOTHING_MS, Answer, Frame, StreamOptions
from service.tracing import Call
from service.window import Drop, Policy

LENGTH = struct.Struct("<I")
# Close codes, RFC 6455 section 7.4.1 and IANA's registry.
NORMAL, GOING_AWAY, PROTOCOL_ERROR, INTERNAL_ERROR, TRY_AGAIN_LATER = 1000, 1001, 1002, 1011, 1013
CLOSE_SECONDS = 1.0  # for the last words
SUBPROTOCOL = "pranet.v1"  # what is chosen of those that a browser offers; the token is another of them

log = logging.getLogger("pranet.access")


class StreamConfig(BaseModel):
    """The first message of a stream."""

    model_config = ConfigDict(extra="forbid")

    policy: Policy = Policy.LATEST
    deadline_ms: float | None = Field(None, gt=0, allow_inf_nan=False)
    output: Literal["mask", "probability", "overlay", "json"] = "mask"
    mask_format: MaskFormat = MaskFormat.PNG
    threshold: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    roi: str = Field("full", pattern=ROI_PATTERN)
    smoothing_ms: float = Field(0, ge=0, le=MAX_SMOOTHING_MS)
    hysteresis: bool = False

    def options(self, default_threshold: float) -> StreamOptions:
        """Return what it asks for."""
        threshold = default_threshold if self.threshold is None else self.threshold
        priority = Priority.LIVE if self.policy is Policy.LATEST else Priority.SINGLE
        frame = Options(threshold, Output(self.output), roi=self.roi, mask_format=self.mask_format, priority=priority)
        return StreamOptions(self.policy, self.deadline_ms, frame, self.smoothing_ms, self.hysteresis)


class RawLayout(BaseModel):
    """How the bytes of a raw frame are to be read."""

    format: PixelFormat
    width: int = Field(ge=1, le=65_535)
    height: int = Field(ge=1, le=65_535)
    stride: int = Field(ge=1, le=1_000_000)


class FrameHead(BaseModel):
    """What stands before the picture of a frame."""

    frame_id: int = Field(ge=0, lt=2**64)
    capture_time_us: int | None = Field(None, ge=-(2**63), lt=2**63)
    raw: RawLayout | None = None


async def stream(websocket: WebSocket) -> None:
    """Serve one stream from its opening to its end."""
    service: Service = websocket.app.state.service
    request_id = request_id_from(websocket.headers.get("x-request-id", ""))
    with service.tracing.call("WS /stream", request_id, websocket.headers, stream=True) as call:
        await _counted(websocket, service, call)


async def _counted(websocket: WebSocket, service: Service, call: Call) -> None:
    request_id, began, code = call.request_id, time.perf_counter(), GOING_AWAY
    try:
        _check_origin(websocket, service.settings.origins)
        subprotocol = SUBPROTOCOL if SUBPROTOCOL in websocket.scope["subprotocols"] else None
        await websocket.accept(subprotocol, call.headers())
        await _run(websocket, service)
        code = await _close(websocket, NORMAL)
    except ClientLeft:
        pass
    except ServiceError as error:
        service.metrics.rejected.labels(error.slug).inc()
        code = await _close(websocket, _close_code(error), error.problem(request_id))
    except Exception:
        log.exception("stream %s failed", request_id)
        failure = InternalError("the service failed; its log has the cause")
        code = await _close(websocket, INTERNAL_ERROR, failure.problem(request_id))
    finally:
        call.ended({"pranet.close_code": code}, failed=code == INTERNAL_ERROR)
        seconds = time.perf_counter() - began
        service.metrics.requests.labels("websocket", str(code)).inc()
        service.metrics.request_duration.labels("websocket").observe(seconds)
        log.info("websocket stream %d %.1f ms id=%s", code, seconds * 1e3, request_id)


async def _run(websocket: WebSocket, service: Service) -> None:
    service.readiness.check()
    messages = _messages(websocket)
    options = _configuration(await service.streams.first(messages), service.settings.threshold)

    async def frames() -> AsyncIterator[Frame]:
        async for message in messages:
            if isinstance(message, str):
                if _parsed(message) != {"end": True}:
                    raise InvalidRequest('after the configuration come binary frames, or {"end": true}')
                return
            yield unpack(message)

    async def send(answer: Answer) -> None:
        try:
            await websocket.send_bytes(pack(answer))
        except (WebSocketDisconnect, RuntimeError) as error:
            raise ClientLeft("the client closed the connection") from error

    with service.streams.open(options) as opened:
        await opened.run(frames(), send)


async def _messages(websocket: WebSocket) -> AsyncIterator[str | bytes]:
    while (message := await websocket.receive())["type"] != "websocket.disconnect":
        data = message.get("bytes")
        yield message["text"] if data is None else data
    raise ClientLeft("the client closed the connection")


def _configuration(message: str | bytes, default_threshold: float) -> StreamOptions:
    if isinstance(message, bytes):
        raise InvalidRequest("the first message of a stream is its configuration, JSON as text")
    try:
        return StreamConfig.model_validate(_parsed(message)).options(default_threshold)
    except ValidationError as error:
        raise InvalidParameter(_faults(error)) from error


def unpack(message: bytes) -> Frame:
    """Read a frame.

    Raises:
        InvalidRequest: the message is not made as it must be.

    """
    if len(message) < LENGTH.size:
        raise InvalidRequest("a frame begins with the length of its JSON in four bytes")
    end = LENGTH.size + LENGTH.unpack_from(message)[0]
    try:
        head = FrameHead.model_validate_json(message[LENGTH.size : end])
    except ValidationError as error:
        raise InvalidRequest(f"the JSON of a frame is wrong: {_faults(error)}") from error
    data = message[end:]
    if head.raw is None:
        return Frame(head.frame_id, data, head.capture_time_us)
    raw = RawPicture(head.raw.format, head.raw.width, head.raw.height, head.raw.stride, data)
    return Frame(head.frame_id, raw, head.capture_time_us)


def pack(answer: Answer) -> bytes:
    """Write down the answer of a frame."""
    head: dict[str, Any] = {
        "frame_id": answer.frame_id,
        "age_ms": round(answer.age_seconds * 1e3, 3),
        "window_ms": round(answer.window_seconds * 1e3, 3),
        "quality": answer.status.quality,
        "added_delay_ms": round(answer.status.added_delay * 1e3, 3),
    }
    payload = b""
    outcome = answer.outcome
    if isinstance(outcome, Segmentation):
        head |= _described(outcome)
        payload = outcome.rendered.png or outcome.rendered.bits
    elif isinstance(outcome, Drop):
        head["outcome"] = outcome.value
    else:
        head |= {"outcome": "failed", "cause": outcome.slug, "detail": outcome.detail}
    text = json.dumps(head).encode()
    return LENGTH.pack(len(text)) + text + payload


def _described(done: Segmentation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "outcome": "answered",
        "width": done.width,
        "height": done.height,
        "threshold": done.options.threshold,
        "times_ms": done.times.milliseconds(),
        "batch_size": done.batch_size,
        "model_id": done.model.model_id,
    }
    if presence := PresenceBody.of(done):
        described["presence"] = presence.model_dump()
    if done.rendered.run_lengths:
        described["run_lengths"] = done.rendered.run_lengths
    if done.options.output is Output.JSON:
        described["polyps"] = [PolypBody.of(polyp).model_dump() for polyp in done.rendered.polyps]
    return described


def _check_origin(websocket: WebSocket, others: list[str]) -> None:
    """Let pages of this very service in, and programs, which name no origin; browsers do not check it themselves."""
    origin = websocket.headers.get("origin")
    if origin in others or "*" in others:
        return
    if origin is not None and urlsplit(origin).netloc != websocket.headers.get("host"):
        raise InvalidRequest(f"pages of {origin} may not stream to this service")


def _close_code(error: ServiceError) -> int:
    if error.status == 503:
        return GOING_AWAY
    if error.retry_after is not None:
        return TRY_AGAIN_LATER
    return INTERNAL_ERROR if error.status >= 500 else PROTOCOL_ERROR


async def _close(websocket: WebSocket, code: int, problem: dict[str, Any] | None = None) -> int:
    gone = (WebSocketDisconnect, RuntimeError, asyncio.CancelledError, TimeoutError)
    with contextlib.suppress(*gone):  # it may be closed already, or not be read
        async with asyncio.timeout(CLOSE_SECONDS):
            if problem and websocket.application_state.name == "CONNECTED":
                await websocket.send_text(json.dumps(problem))
            await websocket.close(code)
    return code


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidRequest("the text is no JSON") from error


def _faults(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'message'}: {fault['msg']}" for fault in error.errors())
