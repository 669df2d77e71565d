"""Admission control: limits the frames that wait for the device; checked before a frame is decoded."""

import asyncio
from collections import deque
from typing import Any

from service.batching.queue import Entry
from service.errors import QueueFull


class Admission:
    """A bounded number of places; an entry holds one from ``take`` until its ``release`` is called."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self._promised = 0  # free places of waiters that were woken and have not gone on yet
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take(self, entry: Entry[Any, Any]) -> None:
        """Give an entry a place.

        Raises:
            QueueFull: no place is free.

        """
        if self._is_full():
            raise QueueFull(f"{self.limit} frames are already queued (MAX_QUEUE_SIZE); retry, or send fewer at once")
        self.taken += 1
        entry.release = self.release

    async def wait_for_place(self) -> None:
        """Wait in line until a place is free; the caller must ``take`` it before it awaits anything else."""
        if not self._is_full():
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():  # woken and cancelled at the same time: pass the place on
                self._promised -= 1
                self._wake()
            raise
        self._promised -= 1

    def release(self) -> None:
        """Free a place: its entry is on the device, or was withdrawn."""
        self.taken -= 1
        self._wake()

    def _is_full(self) -> bool:
        return self.taken + self._promised >= self.limit

    def _wake(self) -> None:
        """Promise a free place to the first in line, so that nobody who comes meanwhile takes it."""
        while self._waiting:
            if not (waiter := self._waiting.popleft()).done():
                self._promised += 1
                waiter.set_result(None)
                return
