"""One connection of a stream: sends frames, receives replies, and matches each reply to its frame."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import grpc

from pranet_client.credentials import Access
from pranet_client.errors import InvalidInput
from pranet_client.inputs import Image, to_picture
from pranet_client.masks import read_mask
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc
from pranet_client.pictures import ColorMatrix, ColorRange, PixelFormat, RawPicture, VideoFrame
from pranet_client.sources import Source

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pranet_client.backlog import Backlog

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # 60 s otherwise
    ("grpc.min_reconnect_backoff_ms", 5_000),  # how long one attempt to connect may take, 20 s otherwise
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),  # otherwise a new channel inherits the back-off of a failed one
)
PIXEL_FORMATS = {
    None: pb.PIXEL_FORMAT_UNSPECIFIED,
    PixelFormat.RGB24: pb.PIXEL_FORMAT_RGB24,
    PixelFormat.BGR24: pb.PIXEL_FORMAT_BGR24,
    PixelFormat.RGBA: pb.PIXEL_FORMAT_RGBA,
    PixelFormat.NV12: pb.PIXEL_FORMAT_NV12,
    PixelFormat.UYVY: pb.PIXEL_FORMAT_UYVY,
}
MATRICES = {
    None: pb.COLOR_MATRIX_UNSPECIFIED,
    ColorMatrix.BT601: pb.COLOR_MATRIX_BT601,
    ColorMatrix.BT709: pb.COLOR_MATRIX_BT709,
    ColorMatrix.BT2020: pb.COLOR_MATRIX_BT2020,
}
RANGES = {ColorRange.LIMITED: pb.COLOR_RANGE_LIMITED, ColorRange.FULL: pb.COLOR_RANGE_FULL}
WITH_MASK = (pb.OUTPUT_UNSPECIFIED, pb.OUTPUT_MASK, pb.OUTPUT_POLYPS)
LAST_ANSWERS_SECONDS = 1.0  # how long the answers of earlier frames are awaited after the source of frames failed
DROP_NAMES = {
    pb.DROP_REASON_STALE: "stale",
    pb.DROP_REASON_DEADLINE: "deadline",
    pb.DROP_REASON_OVERLOAD: "overload",
}


@dataclass(frozen=True, slots=True)
class Reply:
    """The outcome of one frame, and its answer."""

    frame: VideoFrame
    outcome: str  # answered, stale, deadline, overload, dropped (any other reason), failed, or lost (no answer came)
    age_seconds: float  # from capture to the arrival of the answer, by this machine's clock, including all delays
    response: pb.StreamResponse | None  # None if the frame was lost, or stale before it was sent
    image: Any = None  # what was given to ``stream`` for this frame
    has_mask: bool = True  # whether an answer holds a mask: probabilities and overlays are none

    @property
    def mask(self) -> "npt.NDArray[np.uint8] | None":
        """Return the answered mask, uint8 (H, W): 255 on polyps, 0 elsewhere; None if there is no mask.

        Probabilities and overlays are in ``response.mask.png``.

        Raises:
            InvalidInput: NumPy is not installed, or Pillow, which reads ``MASK_FORMAT_PNG``.

        """
        if self.response is None or self.outcome != "answered" or not self.has_mask:
            return None
        return read_mask(self.response.mask)


@dataclass(eq=False, slots=True)
class Sent:
    """A frame, the message that carries it, which a second connection sends again, and in the end its reply."""

    frame: VideoFrame
    image: Any  # what the caller gave
    request: pb.StreamRequest
    reply: Reply | None = None

    def replied(self, outcome: str, response: pb.StreamResponse | None = None, *, has_mask: bool = True) -> None:
        """Keep the reply that has come now."""
        age = time.monotonic() - self.frame.captured
        self.reply = Reply(self.frame, outcome, age, response, self.image, has_mask)
        self.request.Clear()  # frees memory while the reply waits


class Connection:
    """Sends the frames that an earlier connection left unanswered, then the pending ones.

    Args:
        access: token and TLS files.
        target: HOST:PORT.
        config: the stream's first message.
        source: where the frames come from; its error ends the stream.
        backlog: frames to send, and their replies.

    """

    def __init__(
        self, access: Access, target: str, config: pb.StreamConfig, source: Source, backlog: "Backlog"
    ) -> None:
        self._access = access
        self._target = target
        self._config = config
        self._source = source
        self._backlog = backlog
        self.answered = False  # whether the service has answered a frame

    async def replies(self) -> AsyncGenerator[Reply, None]:
        """Yield replies until the frames end, or for ``LAST_ANSWERS_SECONDS`` after their source failed.

        The replies that the caller has not taken by then stay in the backlog: there may always be another one.

        Raises:
            AioRpcError: the connection broke, or the service refused the stream.
            BaseException: the error of the source.

        """
        async with self._access.channel(self._target, CHANNEL_OPTIONS) as channel:
            stub = pb_grpc.SegmentationServiceStub(channel)  # type: ignore[no-untyped-call]
            call = stub.SegmentStream(metadata=self._access.metadata())
            receiving = asyncio.create_task(self._receive(call))
            receiving.add_done_callback(lambda _: self._backlog.wake())
            others = (asyncio.create_task(self._send(call)), asyncio.create_task(self._end_after_failure(call)))
            try:
                while (reply := await self._backlog.take(receiving)) is not None:
                    yield reply
                await receiving
            finally:
                call.cancel()
                for each in (receiving, *others):
                    each.cancel()
                await asyncio.gather(receiving, *others, return_exceptions=True)
            self._source.check()

    async def _receive(self, call: Any) -> None:
        """Take the answers as soon as they come, however slow the caller is, so that the backlog knows of them."""
        has_mask = self._config.output in WITH_MASK
        with contextlib.suppress(asyncio.CancelledError):  # ``_end_after_failure`` ended the call, or ``replies`` ends
            async for response in call:
                self.answered = True
                self._backlog.unanswered.popleft().replied(_outcome(response), response, has_mask=has_mask)
                self._backlog.wake()

    async def _end_after_failure(self, call: Any) -> None:
        """Cancel the call if the source failed and the service does not answer what was sent before."""
        await self._source.failed.wait()
        await asyncio.sleep(LAST_ANSWERS_SECONDS)
        call.cancel()

    async def _send(self, call: Any) -> None:
        try:
            await call.write(pb.StreamRequest(config=self._config))
            for sent in tuple(self._backlog.unanswered):
                await call.write(sent.request)
            while (pending := await self._backlog.next(call.done)) is not None:
                await call.write(pending.request)
            await call.done_writing()
        except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
            pass  # the call has ended; ``replies`` raises the reason
        except Exception as error:
            self._source.fail(error)  # nobody would send the rest


def to_sent(image: "VideoFrame | Image | RawPicture", number: int) -> Sent:
    """Return a frame with its message; a bare picture gets its number as id, and is captured now.

    Raises:
        InvalidInput: it is no picture or ``VideoFrame``, or a field of it has a wrong type or value.

    """
    if isinstance(image, VideoFrame):
        frame = replace(image, picture=to_picture(image.picture))
    else:
        captured = time.monotonic()
        frame = VideoFrame(number, to_picture(image), captured)
    try:
        return Sent(frame, image, _request(frame))
    except (TypeError, ValueError, OverflowError, KeyError) as error:
        raise InvalidInput(f"a VideoFrame has a wrong value ({error}); see its fields' types and units") from error


def _request(frame: VideoFrame) -> pb.StreamRequest:
    sent = pb.StreamFrame(frame_id=frame.frame_id, capture_time_us=round(frame.captured * 1e6))
    if frame.presented is not None:
        sent.presentation_time_us = round(frame.presented * 1e6)
    raw = frame.picture
    if isinstance(raw, bytes):
        sent.image = raw
    else:
        sent.raw.CopyFrom(
            pb.RawImage(
                format=PIXEL_FORMATS[raw.format],
                width=raw.width,
                height=raw.height,
                stride=raw.stride,
                data=raw.data,
                matrix=MATRICES[raw.matrix],
                range=RANGES[raw.range],
            )
        )
    return pb.StreamRequest(frame=sent)


def _outcome(response: pb.StreamResponse) -> str:
    kind = response.WhichOneof("outcome")
    if kind == "dropped":
        return DROP_NAMES.get(response.dropped.reason, "dropped")  # for a reason of a newer service
    return "answered" if kind == "mask" else "failed"
