"""Which frame of a stream is worked on next, and how many may be at once."""

import asyncio
from collections import deque
from enum import StrEnum


class Policy(StrEnum):
    """What becomes of a frame that still waits when a newer one comes."""

    LATEST = "latest"  # live video: the newer one replaces it
    EVERY = "every"  # files: nothing is dropped, the sender is slowed


class Drop(StrEnum):
    """Why a frame was not looked at; it was never decoded."""

    STALE = "stale"  # a newer frame replaced it
    DEADLINE = "deadline"  # its time passed while it waited
    OVERLOAD = "overload"  # the whole service is full


class Turn:
    """The right of one frame to be worked on, given up in two steps: first the device, then the memory."""

    def __init__(self, window: "Window", before: "Turn | None") -> None:
        self._window = window
        self._before = before
        self._off_device = asyncio.Event()

    async def in_order(self) -> None:
        """Wait until the frame before is through the device, or failed."""
        if self._before:
            await self._before._off_device.wait()
            self._before = None  # else each turn would keep all earlier ones in memory

    def leave_device(self) -> None:
        """Let the stream's next frame begin; later calls do nothing."""
        if not self._off_device.is_set():
            self._off_device.set()
            self._before = None
            self._window.left_device()


class Window:
    """The frames of one stream: those that wait, encoded, and those that have their turn.

    Under ``LATEST`` one frame waits at most, and it gets its turn when the one before has left the device: as late as
    possible, so that it can still be replaced. Under ``EVERY`` frames get their turns in order, ``size`` at once.
    In both, a turn is given only while fewer than ``size`` frames have one or hold an answer that nobody took yet.
    """

    def __init__(self, policy: Policy, size: int) -> None:
        self._newest_only = policy is Policy.LATEST
        self._at_once = 1 if self._newest_only else size
        self._size = size
        self._waiting: deque[asyncio.Future[Turn | Drop]] = deque()
        self._working = 0  # have their turn and are not through the device
        self._held = 0  # have their turn, and their answer was not taken
        self._last: Turn | None = None

    async def turn(self, deadline: float | None) -> Turn | Drop:
        """Wait for this frame's turn until ``deadline`` (loop time, seconds; None: for ever)."""
        loop = asyncio.get_running_loop()
        if deadline is not None and deadline <= loop.time():
            return Drop.DEADLINE
        waiter: asyncio.Future[Turn | Drop] = loop.create_future()
        if self._newest_only and (older := self._pop()):
            older.set_result(Drop.STALE)
        self._waiting.append(waiter)
        self._give()
        try:
            async with asyncio.timeout_at(deadline):
                return await waiter
        except TimeoutError:
            return Drop.DEADLINE if waiter.cancelled() else waiter.result()

    def left_device(self) -> None:
        """Note that a frame is through the device, or failed on its way."""
        self._working -= 1
        self._give()

    def answer_taken(self) -> None:
        """Note that the answer of a frame that had its turn is out of this process's memory."""
        self._held -= 1
        self._give()

    def _give(self) -> None:
        while self._working < self._at_once and self._held < self._size and (waiter := self._pop()):
            self._working += 1
            self._held += 1
            self._last = Turn(self, self._last)
            waiter.set_result(self._last)

    def _pop(self) -> "asyncio.Future[Turn | Drop] | None":
        """Return the first who still waits; who left (cancelled, or out of time) is passed over."""
        while self._waiting:
            if not (waiter := self._waiting.popleft()).done():
                return waiter
        return None
