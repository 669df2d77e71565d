"""Converts between WebSocket messages and the service's types; ``service.rest.websocket`` describes their layout."""

import json
import struct
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError

from pranet_client.pictures import ColorMatrix, ColorRange, Picture, PixelFormat, RawPicture
from service.answers import describe
from service.errors import InvalidRequest, ServiceError
from service.frames import raw
from service.frames.frame import Segmentation
from service.options import StreamConfig, read
from service.streams.frame import Drop, StreamFrame
from service.streams.stream import StreamOptions
from service.validation import describe_errors

LENGTH = struct.Struct("<I")
MAX_JSON_BYTES = 16 * 2**10  # of a text or of a frame's header: the event loop parses it


class RawLayout(BaseModel):
    """The memory layout of a raw frame; sizes in pixels, ``stride`` in bytes: None for rows without padding."""

    model_config = ConfigDict(extra="forbid")

    format: PixelFormat
    width: StrictInt = Field(ge=1, le=65_535)
    height: StrictInt = Field(ge=1, le=65_535)
    stride: StrictInt | None = Field(None, ge=1, le=1_000_000)
    matrix: ColorMatrix | None = None
    range: ColorRange | None = None

    def picture(self, data: bytes) -> RawPicture:
        """Return the picture of this layout; it is checked later, when it is decoded."""
        stride = self.stride or raw.row_bytes(self.format, self.width)
        levels = self.range or ColorRange.LIMITED
        return RawPicture(self.format, self.width, self.height, stride, data, self.matrix, levels)


class FrameHead(BaseModel):
    """The JSON header of a frame's message."""

    model_config = ConfigDict(extra="forbid")

    frame_id: StrictInt = Field(ge=0, lt=2**64)
    capture_time_us: StrictInt | None = Field(None, ge=-(2**63), lt=2**63)
    presentation_time_us: StrictInt | None = Field(None, ge=-(2**63), lt=2**63)
    raw: RawLayout | None = None


def stream_options(message: str | bytes, default_threshold: float) -> StreamOptions:
    """Parse the configuration, the first message of a stream.

    Raises:
        InvalidRequest: the message is binary or not JSON.
        InvalidParameter: a value is unknown or out of range.

    """
    if isinstance(message, bytes):
        raise InvalidRequest("the first message of a stream is its configuration; send it as JSON in a text message")
    configuration = parsed(message, "send the configuration of the stream as a JSON object, such as {}")
    return read(StreamConfig, configuration, "the configuration: ").stream_options(default_threshold)


def unpack(message: bytes) -> StreamFrame:
    """Parse the binary message of a frame; its picture is not decoded yet.

    Raises:
        InvalidRequest: the message does not have the layout of a frame.

    """
    if len(message) < LENGTH.size:
        raise InvalidRequest("the message is too short; a frame begins with the length of its JSON in four bytes")
    (size,) = LENGTH.unpack_from(message)
    _check_size(size)
    end = LENGTH.size + size
    try:
        head = FrameHead.model_validate_json(message[LENGTH.size : end])
    except ValidationError as error:
        raise InvalidRequest(f"the JSON of a frame: {describe_errors(error.errors(), FrameHead)}") from error
    data = message[end:]
    source: Picture = data if head.raw is None else head.raw.picture(data)
    return StreamFrame(
        frame_id=head.frame_id,
        source=source,
        capture_time_us=head.capture_time_us,
        presentation_time_us=head.presentation_time_us,
    )


def pack(frame: StreamFrame) -> bytes:
    """Encode the answer of a frame as a binary message."""
    head: dict[str, Any] = {
        "frame_id": frame.frame_id,
        "age_ms": round(frame.age_seconds * 1e3, 3),
        "window_ms": round(frame.window_seconds * 1e3, 3),
        "quality": frame.status.quality,
        "added_delay_ms": round(frame.status.added_delay * 1e3, 3),
    }
    payload = b""
    match frame.outcome:
        case Segmentation() as done:
            head |= {"outcome": "answered", "reused": frame.reused, **describe(done)}
            payload = done.png or done.bits
        case Drop() as reason:
            head["outcome"] = reason.value
        case ServiceError() as error:
            head |= {"outcome": "failed", "cause": error.slug, "detail": error.detail}
    text = json.dumps(head).encode()
    return LENGTH.pack(len(text)) + text + payload


def parsed(text: str, advice: str) -> Any:
    """Parse the JSON of a text message; ``advice`` says what to send if it is none.

    Raises:
        InvalidRequest: the text is not JSON, or longer than ``MAX_JSON_BYTES``.

    """
    _check_size(len(text.encode()))
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # RecursionError: JSON that is nested too deeply
        raise InvalidRequest(f"the text is not valid JSON; {advice}") from error


def _check_size(size: int) -> None:
    if size > MAX_JSON_BYTES:
        raise InvalidRequest(f"the JSON of a message has {size} bytes; send at most {MAX_JSON_BYTES}")
