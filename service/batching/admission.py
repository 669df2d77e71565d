"""How much work may be accepted and not yet be on the device: counted before anything is decoded."""

import asyncio
from collections import deque
from typing import Any

from service.batching.queue import Entry
from service.errors import QueueFull


class Admission:
    """A bounded number of places; an entry holds one from ``take`` until its ``release`` is called, once."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take(self, entry: Entry[Any, Any]) -> None:
        """Give an entry a place.

        Raises:
            QueueFull: every place is taken.

        """
        if self.taken >= self.limit:
            raise QueueFull(f"{self.limit} frames wait already (MAX_QUEUE_SIZE); retry, or send fewer at once")
        self.taken += 1
        entry.release = self.release

    async def wait_for_place(self) -> None:
        """Wait until a place is free, behind all who wait already; take it at once."""
        while self.taken >= self.limit:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake()  # woken and cancelled in the same moment: the next one has the place
                raise

    def release(self) -> None:
        """Take a place back: its entry is on the device, or left."""
        self.taken -= 1
        self._wake()

    def _wake(self) -> None:
        while self._waiting:
            if not (waiter := self._waiting.popleft()).done():
                waiter.set_result(None)
                return
