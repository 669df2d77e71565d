"""All open streams: how many there may be, their slots in the metrics, and their common end."""

import asyncio
import heapq
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import TooManyStreams
from service.metrics import Metrics
from service.segmenter import Segmenter
from service.stream import Stream, StreamOptions


class Streams:
    """Opens streams over one segmenter."""

    def __init__(
        self, segmenter: Segmenter, metrics: Metrics, *, max_streams: int, window: int, frame_timeout: float
    ) -> None:
        self._segmenter = segmenter
        self._metrics = metrics
        self._window = window
        self._frame_timeout = frame_timeout  # seconds
        self._free = list(range(max_streams))  # a heap: the lowest slot is taken first
        self._draining = asyncio.Event()
        self.active = 0
        self.idle = asyncio.Event()  # set while no stream is open
        self.idle.set()
        metrics.streams_active.set_function(lambda: self.active)

    @contextmanager
    def open(self, options: StreamOptions) -> Iterator[Stream]:
        """Hold one of the places for streams inside the block.

        Raises:
            TooManyStreams: all are taken.

        """
        if not self._free:
            raise TooManyStreams(f"{self.active} streams are open (MAX_STREAMS); close one, or retry")
        slot = heapq.heappop(self._free)
        self.active += 1
        self.idle.clear()
        try:
            yield Stream(
                self._segmenter,
                options,
                self._metrics.stream(slot),
                self._draining,
                window=self._window,
                frame_timeout=self._frame_timeout,
            )
        finally:
            heapq.heappush(self._free, slot)
            self.active -= 1
            if not self.active:
                self.idle.set()

    def drain(self) -> None:
        """Let every open stream, and every later one, end once its accepted frames are answered."""
        self._draining.set()
