"""How much work may be accepted and not yet be on the device: counted before anything is decoded."""

import asyncio
from collections import deque
from types import TracebackType
from typing import Self

from service.errors import QueueFull


class Admission:
    """A bounded number of places; ``with admission.place() as place`` takes one or raises ``QueueFull``."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self._patient: deque[asyncio.Future[None]] = deque()

    def place(self) -> "Place":
        """Return a place that is taken on entry and given back once, by ``release`` or on exit."""
        return Place(self)

    async def room(self) -> None:
        """Wait until a place is free, behind all who wait already; take it at once."""
        while self.taken >= self.limit:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._patient.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self.freed()  # woken and cancelled in the same moment: the next one has the place
                raise

    def freed(self) -> None:
        """Wake the first who waits for room."""
        while self._patient:
            if not (waiter := self._patient.popleft()).done():
                waiter.set_result(None)
                return


class Place:
    """One accepted frame that is not yet on the device."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._held = False

    def __enter__(self) -> Self:
        """Take the place.

        Raises:
            QueueFull: every place is taken.

        """
        if self._admission.taken >= self._admission.limit:
            raise QueueFull(
                f"{self._admission.limit} frames wait already (MAX_QUEUE_SIZE); retry, or send fewer at once"
            )
        self._admission.taken += 1
        self._held = True
        return self

    def release(self) -> None:
        """Give the place back: the frame is on the device now. Later calls do nothing."""
        if self._held:
            self._held = False
            self._admission.taken -= 1
            self._admission.freed()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
