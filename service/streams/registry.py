"""The open streams: limits their number, assigns their slots in the metrics, and drains them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TypeVar

from service.access import rate_limits
from service.errors import BodyTooSlow, Draining, InvalidRequest, TooManyStreams
from service.frames.segmenter import Segmenter
from service.observability.metrics import Metrics
from service.observability.stream_metrics import StreamMetrics
from service.processes.memory import Places
from service.streams.stream import Stream, StreamOptions

T = TypeVar("T")


class Streams:
    """Opens streams that share one segmenter, as many at a time as there are places."""

    def __init__(
        self,
        segmenter: Segmenter,
        metrics: Metrics,
        *,
        places: Places,
        window: int,
        frame_timeout: float,
        unread_timeout: float | None,
    ) -> None:
        self._segmenter = segmenter
        self._metrics = metrics
        self.window = window  # frames of one stream in progress at once
        self._frame_timeout = frame_timeout  # seconds
        self.unread_timeout = unread_timeout  # of an answer, seconds; None: any
        self._places = places
        self.draining = asyncio.Event()  # set once the service shuts down
        metrics.streams_active.set_function(lambda: places.taken)
        metrics.initialise_stream_series(places.count)

    @property
    def active(self) -> int:
        """How many streams are open in this process."""
        return self._places.taken

    async def first(self, messages: AsyncIterator[T]) -> T:
        """Wait for the first message of a stream, its configuration.

        Raises:
            InvalidRequest: the stream ended without a message.
            BodyTooSlow: no message arrived within the frame timeout.
            Draining: the service is shutting down.

        """
        reading = asyncio.ensure_future(anext(messages, None))
        stopping = asyncio.ensure_future(self.draining.wait())
        try:
            both = (reading, stopping)
            await asyncio.wait(both, timeout=self._frame_timeout, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                raise Draining("the service is shutting down; stream to another instance")
            if not reading.done():
                raise BodyTooSlow("no configuration arrived in time; send it as the first message of a stream")
            if (message := reading.result()) is None:
                raise InvalidRequest("the stream ended without a configuration; send one, and then frames")
            return message
        finally:
            reading.cancel()
            stopping.cancel()
            await asyncio.gather(reading, stopping, return_exceptions=True)

    @contextmanager
    def open(self, options: StreamOptions) -> Iterator[Stream]:
        """Open a video stream for the duration of the block.

        Raises:
            TooManyStreams: no place is free.

        """
        with self.place() as slot:
            yield Stream(
                self._segmenter,
                options,
                StreamMetrics(self._metrics, str(slot)),
                self.draining,
                allowance=rate_limits.current(),
                window=self.window,
                frame_timeout=self._frame_timeout,
                unread_timeout=self.unread_timeout,
            )

    @contextmanager
    def place(self) -> Iterator[int]:
        """Hold one of the places for streams inside the block; yield its number, the slot in the metrics.

        Raises:
            TooManyStreams: no place is free.

        """
        if (slot := self._places.take()) is None:
            raise TooManyStreams(
                f"all {self._places.count} streams are open that MAX_STREAMS allows; close one, or retry"
            )
        try:
            yield slot
        finally:
            self._places.give_back(slot)

    def drain(self) -> None:
        """End all streams, also later ones, once their accepted frames are answered."""
        self.draining.set()
