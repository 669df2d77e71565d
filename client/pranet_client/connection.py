"""One connection of a stream: sends frames, receives replies, and matches each reply to its frame."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc

from pranet_client.credentials import Access
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc
from pranet_client.pictures import ColorMatrix, ColorRange, Picture, PixelFormat

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
DROP_NAMES = {
    pb.DROP_REASON_STALE: "stale",
    pb.DROP_REASON_DEADLINE: "deadline",
    pb.DROP_REASON_OVERLOAD: "overload",
}


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """One frame of a video."""

    frame_id: int
    picture: Picture
    captured: float  # time.monotonic() of this machine, seconds
    presented: float | None = None  # of a recording: its time in it, seconds, which smoothing counts by


@dataclass(frozen=True, slots=True)
class Reply:
    """The outcome of one frame, and its answer."""

    frame: VideoFrame
    outcome: str  # answered, stale, deadline, overload, failed, or lost (the connection broke before its answer)
    age_seconds: float  # from capture to the arrival of the answer, by this machine's clock, including all delays
    response: pb.StreamResponse | None  # None if the frame was lost


class Connection:
    """Sends the frames that an earlier connection left unanswered, then the pending ones.

    Args:
        access: token and TLS files.
        target: HOST:PORT.
        config: the stream's first message.
        pending: frames to send; None ends the stream.
        unanswered: frames sent and not answered yet, oldest first; the next connection sends them if this one breaks.

    """

    def __init__(
        self,
        access: Access,
        target: str,
        config: pb.StreamConfig,
        pending: asyncio.Queue[VideoFrame | None],
        unanswered: deque[VideoFrame],
    ) -> None:
        self._access = access
        self._target = target
        self._config = config
        self._pending = pending
        self._unanswered = unanswered

    async def replies(self) -> AsyncIterator[Reply]:
        """Yield a reply for each frame until the frames end.

        Raises:
            AioRpcError: the connection broke, or the service refused the stream.

        """
        async with self._access.channel(self._target, CHANNEL_OPTIONS) as channel:
            stub = pb_grpc.SegmentationServiceStub(channel)  # type: ignore[no-untyped-call]
            call = stub.SegmentStream(metadata=self._access.metadata())
            sending = asyncio.create_task(self._send(call))
            try:
                async for response in call:
                    frame = self._unanswered.popleft()
                    yield Reply(frame, _outcome(response), time.monotonic() - frame.captured, response)
            finally:
                sending.cancel()
                call.cancel()
                await asyncio.gather(sending, return_exceptions=True)

    async def _send(self, call: Any) -> None:
        with suppress(
            asyncio.InvalidStateError, grpc.aio.AioRpcError
        ):  # the call has ended; ``replies`` raises the reason
            await call.write(pb.StreamRequest(config=self._config))
            for frame in tuple(self._unanswered):
                await call.write(_request(frame))
            while (pending := await self._pending.get()) is not None:
                self._unanswered.append(pending)
                await call.write(_request(pending))
            self._pending.put_nowait(None)  # so that the next connection ends too, if this one breaks
            await call.done_writing()


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
        return DROP_NAMES[response.dropped.reason]
    return "answered" if kind == "mask" else "failed"
