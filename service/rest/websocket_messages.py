"""WebSocket messages <-> the service's own types; ``service.rest.websocket`` says how they are laid out."""

import json
import struct
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pranet_client.pictures import PixelFormat, RawPicture
from service.batching.queue import Priority
from service.errors import InvalidParameter, InvalidRequest
from service.frames.frame import MaskFormat, Options, Output
from service.frames.regions import ROI_FORMS, ROI_PATTERN
from service.frames.segmenter import Segmentation
from service.rest.schemas import PolypBody, PresenceBody
from service.streams.stream import MAX_SMOOTHING_MS, Answer, Frame, StreamOptions
from service.streams.window import Drop, Policy
from service.validation import said

LENGTH = struct.Struct("<I")
MAX_JSON_BYTES = 16 * 2**10  # of a text, or before the picture of a frame: it is read on the event loop


class StreamConfig(BaseModel):
    """The first message of a stream."""

    model_config = ConfigDict(extra="forbid")

    policy: Policy = Policy.LATEST
    deadline_ms: float | None = Field(None, gt=0, allow_inf_nan=False)
    output: Literal["mask", "probability", "overlay", "json"] = "mask"
    mask_format: MaskFormat = MaskFormat.PNG
    threshold: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    roi: str = Field("full", pattern=ROI_PATTERN, description=ROI_FORMS)
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

    model_config = ConfigDict(extra="forbid")

    format: PixelFormat
    width: int = Field(ge=1, le=65_535)
    height: int = Field(ge=1, le=65_535)
    stride: int = Field(ge=1, le=1_000_000)


class FrameHead(BaseModel):
    """What stands before the picture of a frame."""

    model_config = ConfigDict(extra="forbid")

    frame_id: int = Field(ge=0, lt=2**64)
    capture_time_us: int | None = Field(None, ge=-(2**63), lt=2**63)
    raw: RawLayout | None = None


def stream_options(message: str | bytes, default_threshold: float) -> StreamOptions:
    """Read the first message of a stream.

    Raises:
        InvalidRequest: it is no configuration.
        InvalidParameter: a value is unknown or out of range.

    """
    if isinstance(message, bytes):
        raise InvalidRequest("the first message of a stream is its configuration; send it as JSON in a text message")
    try:
        return StreamConfig.model_validate(parsed(message)).options(default_threshold)
    except ValidationError as error:
        raise InvalidParameter(f"the configuration: {said(error.errors(), StreamConfig)}") from error


def unpack(message: bytes) -> Frame:
    """Read a frame.

    Raises:
        InvalidRequest: the message is not made as it must be.

    """
    if len(message) < LENGTH.size:
        raise InvalidRequest("the message is too short; a frame begins with the length of its JSON in four bytes")
    (size,) = LENGTH.unpack_from(message)
    _check_size(size)
    end = LENGTH.size + size
    try:
        head = FrameHead.model_validate_json(message[LENGTH.size : end])
    except ValidationError as error:
        raise InvalidRequest(f"the JSON of a frame: {said(error.errors(), FrameHead)}") from error
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


def parsed(text: str) -> Any:
    """Read JSON.

    Raises:
        InvalidRequest: it is none, or too long.

    """
    _check_size(len(text))
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # or JSON too deep to be read
        raise InvalidRequest("the text is no JSON; send a JSON object, or frames as binary messages") from error


def _check_size(size: int) -> None:
    if size > MAX_JSON_BYTES:
        raise InvalidRequest(f"the JSON of a message has {size} bytes; send at most {MAX_JSON_BYTES}")
