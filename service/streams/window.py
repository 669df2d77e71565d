"""Decides which frame of a stream is processed next, and how many are in progress at once."""

import asyncio
from collections import deque
from enum import StrEnum

from service.streams.frame import Drop, StreamFrame


class Policy(StrEnum):
    """What happens to a waiting frame when a newer one arrives."""

    LATEST = "latest"  # live video: the newer frame replaces it
    EVERY = "every"  # files: nothing is dropped, and backpressure slows the sender


class Window:
    """Gives the frames of one stream their turns; a frame waits, encoded, until it has one.

    Under ``LATEST`` at most one frame waits. It gets its turn when the frame before it has left the device: as late as
    possible, so that a newer frame can still replace it. Under ``EVERY`` frames get their turns in order, ``size`` at
    once. In both cases, at most ``size`` frames are in progress or have an answer that the transport has not taken.
    """

    def __init__(self, policy: Policy, size: int) -> None:
        self._newest_only = policy is Policy.LATEST
        self._at_once = 1 if self._newest_only else size
        self._size = size
        self._waiting: deque[tuple[StreamFrame, asyncio.Future[Drop | None]]] = deque()
        self._working: list[asyncio.Event] = []  # ``off_device`` of frames that have their turn, in its order
        self._held = 0  # frames that have their turn and whose answer was not read

    async def turn(self, frame: StreamFrame) -> Drop | None:
        """Wait for a frame's turn; return None once it has its turn, or why it is dropped."""
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
        """Wait until every frame with an earlier turn has left the device or failed."""
        for earlier in frame.before:  # not only the last: it may have failed while others are still on the device
            await earlier.wait()

    def left_device(self, frame: StreamFrame) -> None:
        """Record that a frame has left the device or failed, so that the next one can begin; later calls do nothing."""
        if not frame.off_device.is_set():
            frame.off_device.set()
            self._working.remove(frame.off_device)
            self._give_turns()

    def answer_taken(self) -> None:
        """Record that the client has read the answer of a frame that had its turn."""
        self._held -= 1
        self._give_turns()

    def _give_turns(self) -> None:
        while len(self._working) < self._at_once and self._held < self._size and (waiting := self._pop()):
            frame, waiter = waiting
            frame.had_turn, frame.before = True, tuple(self._working)
            self._working.append(frame.off_device)
            self._held += 1
            waiter.set_result(None)

    def _pop(self) -> "tuple[StreamFrame, asyncio.Future[Drop | None]] | None":
        """Remove and return the first waiting frame, skipping those that were cancelled or expired."""
        while self._waiting:
            if not (waiting := self._waiting.popleft())[1].done():
                return waiting
        return None
