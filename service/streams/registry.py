"""All open streams: how many there may be, their slots in the metrics, and their common end."""

import asyncio
import heapq
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TypeVar

from service.access import rate_limits
from service.errors import BodyTooSlow, Draining, InvalidRequest, TooManyStreams
from service.frames.segmenter import Segmenter
from service.observability.metrics import Metrics
from service.streams.stream import Stream, StreamOptions

T = TypeVar("T")


class Streams:
    """Opens streams over one segmenter."""

    def __init__(
        self, segmenter: Segmenter, metrics: Metrics, *, max_streams: int, window: int, frame_timeout: float
    ) -> None:
        self._segmenter = segmenter
        self._metrics = metrics
        self.window = window  # frames of one stream at once
        self._frame_timeout = frame_timeout  # seconds
        self._free = list(range(max_streams))  # a heap: the lowest slot is taken first
        self.draining = asyncio.Event()  # set once the service stops
        self.active = 0
        self.idle = asyncio.Event()  # set while no stream is open
        self.idle.set()
        metrics.streams_active.set_function(lambda: self.active)

    async def first(self, messages: AsyncIterator[T]) -> T:
        """Return the first message of a stream that is to be opened: its configuration.

        Raises:
            InvalidRequest: the stream ended without one.
            BodyTooSlow: none came in time.
            Draining: the service stops.

        """
        reading = asyncio.ensure_future(anext(messages, None))
        stopping = asyncio.ensure_future(self.draining.wait())
        try:
            both = (reading, stopping)
            await asyncio.wait(both, timeout=self._frame_timeout, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                raise Draining("the service is stopping; stream from another instance")
            if not reading.done():
                raise BodyTooSlow("no configuration came in time; send it as the first message of a stream")
            if (message := reading.result()) is None:
                raise InvalidRequest("the stream ended before its configuration; send one, and then frames")
            return message
        finally:
            reading.cancel()
            stopping.cancel()
            await asyncio.gather(reading, stopping, return_exceptions=True)

    @contextmanager
    def open(self, options: StreamOptions) -> Iterator[Stream]:
        """Open a video stream that lasts as long as the block.

        Raises:
            TooManyStreams: all places are taken.

        """
        with self.place() as slot:
            yield Stream(
                self._segmenter,
                options,
                self._metrics.stream(slot),
                self.draining,
                allowance=rate_limits.current(),
                window=self.window,
                frame_timeout=self._frame_timeout,
            )

    @contextmanager
    def place(self) -> Iterator[int]:
        """Hold one of the places for streams inside the block; yields its slot.

        Raises:
            TooManyStreams: all are taken.

        """
        if not self._free:
            raise TooManyStreams(f"{self.active} streams are open (MAX_STREAMS); close one, or retry")
        slot = heapq.heappop(self._free)
        self.active += 1
        self.idle.clear()
        try:
            yield slot
        finally:
            heapq.heappush(self._free, slot)
            self.active -= 1
            if not self.active:
                self.idle.set()

    def drain(self) -> None:
        """Let every open stream, and every later one, end once its accepted frames are answered."""
        self.draining.set()
