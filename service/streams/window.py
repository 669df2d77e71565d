"""Which frame of a stream is worked on next, and how many may be at once."""

import asyncio
from collections import deque
from enum import StrEnum

from service.streams.frame import Drop, StreamFrame


class Policy(StrEnum):
    """What becomes of a frame that still waits when a newer one comes."""

    LATEST = "latest"  # live video: the newer one replaces it
    EVERY = "every"  # files: nothing is dropped, the sender is slowed


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
        self._waiting: deque[tuple[StreamFrame, asyncio.Future[Drop | None]]] = deque()
        self._working = 0  # have their turn and are not through the device
        self._held = 0  # have their turn, and their answer was not taken
        self._last: asyncio.Event | None = None  # of the frame that had the last turn: it is off the device

    async def turn(self, frame: StreamFrame) -> Drop | None:
        """Wait for a frame's turn, until it expires; return why it gets none, or None once it has it."""
        loop = asyncio.get_running_loop()
        if frame.expires is not None and frame.expires <= loop.time():
            return Drop.DEADLINE
        waiter: asyncio.Future[Drop | None] = loop.create_future()
        if self._newest_only and (older := self._pop()):
            older[1].set_result(Drop.STALE)
        self._waiting.append((frame, waiter))
        self._give_turns()
        try:
            async with asyncio.timeout_at(frame.expires):
                return await waiter
        except TimeoutError:
            return Drop.DEADLINE if waiter.cancelled() else waiter.result()

    async def in_order(self, frame: StreamFrame) -> None:
        """Wait until the frame that had its turn before this one is through the device, or failed."""
        if frame.before:
            await frame.before.wait()

    def left_device(self, frame: StreamFrame) -> None:
        """Note that a frame is through the device, or failed on its way, so that the next may begin; once."""
        if not frame.off_device.is_set():
            frame.off_device.set()
            self._working -= 1
            self._give_turns()

    def answer_taken(self) -> None:
        """Note that the answer of a frame that had its turn is out of this process's memory."""
        self._held -= 1
        self._give_turns()

    def _give_turns(self) -> None:
        while self._working < self._at_once and self._held < self._size and (waiting := self._pop()):
            frame, waiter = waiting
            self._working += 1
            self._held += 1
            frame.had_turn, frame.before, self._last = True, self._last, frame.off_device
            waiter.set_result(None)

    def _pop(self) -> "tuple[StreamFrame, asyncio.Future[Drop | None]] | None":
        """Return the first who still waits; who left (cancelled, or out of time) is passed over."""
        while self._waiting:
            if not (waiting := self._waiting.popleft())[1].done():
                return waiting
        return None
