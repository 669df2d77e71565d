"""The frames of a stream between their source, the service and the caller, each of which may be the slowest."""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from pranet_client.connection import Reply, Sent

MOST_OPEN = 64  # frames read whose reply the caller has not taken; it bounds memory
MOST_OPEN_LIVE = 256  # of live video, as many as the service reads: behind one that is computed, all others are open
MOST_UNREAD = 16  # of these, replies that the caller could take
MOST_MASKS = 2  # of these, masks of live video: by so many frames that the caller handles, a mask is late
BEHIND_SECONDS = 0.5  # of live video, that a caller may need for the replies of all open frames, if none has a mask
WAIT_SECONDS = 0.5  # in which no connection asks for a frame, after which live frames give way to newer ones


class Backlog:
    """The frames that were read and whose reply the caller has not taken, in order.

    The transports hold hundreds of small answers unread, so only here is it seen that the caller is slow.

    * One frame may be pending, that is, not sent yet. The next one is read, and takes its place once it is sent or
      replaced; only then another one is read.
    * Nothing is sent, replaced or read while there is no room: ``MOST_UNREAD`` replies wait for the caller, who takes
      them in order, so those behind a frame without a reply do not count; or
      ``MOST_OPEN`` frames (``MOST_OPEN_LIVE`` of live video) are open. Of live video, all of them may become stale at
      once, so for a caller that is slow also for replies without a mask, these are as many as it takes in
      ``BEHIND_SECONDS``, but at least ``MOST_UNREAD``.
    * Otherwise a pending frame is sent as soon as a connection asks for it; but of live video, not while ``MOST_MASKS``
      masks wait for the caller.
    * A pending frame of live video that is not sent gives way to a newer one, and becomes ``stale``: at once while
      masks wait; otherwise if no connection has asked for a frame for ``WAIT_SECONDS``. It then does so as often as a
      newer one is read, since a source may keep what nobody reads, and deliver it when it is old.

    Make it where an event loop runs.

    Args:
        newest_only: whether the video is live (``POLICY_LATEST``).

    """

    def __init__(self, *, newest_only: bool) -> None:
        self.unanswered: deque[Sent] = deque()  # with the service, oldest first; sent again if the connection breaks
        self._newest_only = newest_only
        self._most_open = MOST_OPEN_LIVE if newest_only else MOST_OPEN
        self._open: deque[Sent] = deque()  # all of them, oldest first
        self._left: tuple[float, bool] | None = None  # when the caller took a reply, and if a mask, until it is back
        self._pace = 0.0  # seconds that it needs for a reply without a mask, lately
        self._pending: Sent | None = None  # the newest, if it is not sent yet
        self._idle = False  # whether no connection has asked for a frame for ``WAIT_SECONDS``
        self._ended = False
        self._changed = asyncio.Event()
        self._timer = self._until_idle()

    @property
    def finished(self) -> bool:
        """Tell whether the source has ended and every frame has its reply."""
        return self._ended and all(frame.reply for frame in self._open)

    async def put(self, frame: Sent) -> None:
        """Add a frame that was read just now, as soon as the one before it is sent, or may be replaced."""
        await self._until(lambda: self._pending is None or self._may_replace())
        if self._pending is not None:
            self._pending.replied("stale")
        self._pending = frame
        self._open.append(frame)
        self.wake()

    def end(self) -> None:
        """Record that the source has ended."""
        self._ended = True
        self.wake()

    async def next(self, over: Callable[[], bool]) -> Sent | None:
        """Return the next frame to send, which is unanswered from now on; None after the last one, or once it is over.

        Args:
            over: tells whether the call has ended; the frame then stays for the next one.

        """
        self._timer.cancel()
        self._idle = False
        try:
            await self._until(lambda: over() or (self._ended if self._pending is None else self._may_send()))
        finally:
            self._timer = self._until_idle()
        if over():
            return None
        frame, self._pending = self._pending, None
        if frame is not None:
            self.unanswered.append(frame)
            self.wake()
        return frame

    def lose(self) -> None:
        """Give every unanswered frame the outcome ``lost``."""
        while self.unanswered:
            self.unanswered.popleft().replied("lost")

    def lose_all(self) -> list[Reply]:
        """Give every frame without a reply, sent or not, the outcome ``lost``; return all replies not taken yet."""
        for frame in self._open:
            if frame.reply is None:
                frame.replied("lost")
        return [reply for frame in self._open if (reply := frame.reply)]

    async def take(self, task: "asyncio.Task[Any]") -> Reply | None:
        """Return the next reply; None once ``task`` has ended, which wakes this then, even if replies are left."""
        self._learn_pace()
        await self._until(lambda: task.done() or bool(self._open and self._open[0].reply))
        return None if task.done() else self.taken()

    def taken(self) -> Reply | None:
        """Return the next reply, if it is there."""
        reply = self._open[0].reply if self._open else None
        if reply is not None:
            self._open.popleft()
            self._left = time.monotonic(), reply.outcome == "answered"
            self.wake()
        return reply

    def wake(self) -> None:
        """Let everyone who waits look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _learn_pace(self) -> None:
        """Learn how long the caller was away with a reply; one that is slow for masks only takes others quickly.

        So a mask tells that the caller is quick, but not that it is slow, except for the first reply.
        """
        if self._left is not None:
            left_at, has_mask = self._left
            away = time.monotonic() - left_at
            if has_mask and self._pace:
                away = min(away, self._pace)
            self._pace += (away - self._pace) / 4
            self._left = None

    def _until_idle(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(WAIT_SECONDS, self._be_idle)

    def _be_idle(self) -> None:
        self._idle = True
        self.wake()

    def _may_send(self) -> bool:
        return self._has_room() and not self._has_masks()

    def _may_replace(self) -> bool:
        return self._newest_only and self._has_room() and (self._has_masks() or self._idle)

    def _has_room(self) -> bool:
        unread = sum(1 for _ in itertools.takewhile(lambda frame: frame.reply is not None, self._open))
        most = self._most_open
        if self._newest_only and self._pace * most > BEHIND_SECONDS:
            most = max(MOST_UNREAD, int(BEHIND_SECONDS / self._pace))
        return len(self._open) <= most and unread < MOST_UNREAD

    def _has_masks(self) -> bool:
        """Tell whether, of live video, the caller has masks enough to go on with."""
        masks = sum(frame.reply is not None and frame.reply.outcome == "answered" for frame in self._open)
        return self._newest_only and masks >= MOST_MASKS

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()
