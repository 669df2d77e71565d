"""What waits for a device, and which of it goes next: the queue in front of a batcher."""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

from service.batching.archive_policy import ArchivePolicy

Item = TypeVar("Item")
Result = TypeVar("Result")


class Priority(IntEnum):
    """Who goes first when a batch is formed."""

    LIVE = 0  # frames of a live stream
    SINGLE = 1  # single requests
    ARCHIVE = 2  # bulk that nobody watches; ``service.batching.archive_policy`` tells when it may go


@dataclass(eq=False, slots=True, kw_only=True)
class Entry(Generic[Item, Result]):
    """One item in flight, from its admission to its result, which rides with it."""

    item: Item | None = None  # what the device takes, once it is made
    priority: Priority = Priority.SINGLE
    deadline: float = math.inf  # loop time, seconds, at which the result is of no use any more
    release: Callable[[], None] | None = None  # gives its place of admission back, once
    arrived: float = 0.0  # in the queue; loop time, seconds
    queued: float = 0.0  # the same moment and the next ones by time.perf_counter, seconds
    started: float = 0.0  # left the queue
    computed: tuple[float, float] = (0.0, 0.0)  # begin and end of its batch on the device
    batch_size: int = 0
    result: Result | None = None
    answered: asyncio.Future[None] | None = None  # done with its result, or with its error

    @property
    def is_over(self) -> bool:
        """Tell whether nobody waits for the result any more, or it is there."""
        return self.answered is None or self.answered.done()


class Queue(Generic[Item, Result]):
    """Entries that wait, by priority; a batch is due once it is full, or its oldest member has waited long enough."""

    def __init__(self, max_batch_size: int, max_delay: float) -> None:
        self._max_batch_size = max_batch_size
        self._max_delay = max_delay  # seconds
        self._entries: dict[Priority, dict[Entry[Item, Result], None]] = {priority: {} for priority in Priority}
        self._archive_policy = ArchivePolicy()
        self._changed = asyncio.Event()
        self._pulling = asyncio.Lock()

    def __len__(self) -> int:
        return sum(map(len, self._entries.values()))

    def all(self) -> list[Entry[Item, Result]]:
        """Return every entry that waits, those first that go first."""
        return [entry for entries in self._entries.values() for entry in entries]

    def add(self, entry: Entry[Item, Result]) -> None:
        """Queue an entry."""
        self._entries[entry.priority][entry] = None
        if entry.priority is Priority.LIVE:
            self._archive_policy.live(entry.arrived)
        self._changed.set()

    def discard(self, entry: Entry[Item, Result]) -> None:
        """Take an entry out, if it still waits."""
        self._entries[entry.priority].pop(entry, None)

    async def next_batch(self) -> list[Entry[Item, Result]]:
        """Wait until a batch is due, and take it out; may be empty, where all of it left in this very moment."""
        async with self._pulling:  # one slot forms a batch, the others queue behind it
            while not self._is_due():
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(self._due_at()):
                        await self._changed.wait()
            return self._taken(self._chosen())

    def answered(self, batch: Sequence[Entry[Item, Result]], frame_seconds: float) -> None:
        """Note that a batch left the device, where a frame takes so many seconds of late."""
        self._archive_policy.frame_seconds = frame_seconds
        if Priority.LIVE in {entry.priority for entry in batch}:
            self._archive_policy.live_left(asyncio.get_running_loop().time())

    def _taken(self, batch: list[Entry[Item, Result]]) -> list[Entry[Item, Result]]:
        now = time.perf_counter()
        staying = [entry for entry in batch if not entry.is_over]  # who left in this very moment is not computed
        for entry in batch:
            self.discard(entry)
            entry.started = now
            if entry.release is not None:
                entry.release()
                entry.release = None
        return staying

    def _chosen(self) -> list[Entry[Item, Result]]:
        """Return the members of the batch that is due: never bulk beside others, who would wait for it."""
        if urgent := self._urgent():
            return urgent[: self._max_batch_size]
        now = asyncio.get_running_loop().time()
        size = min(self._archive_policy.size(now), self._max_batch_size)
        self._archive_policy.started(now)
        return list(self._entries[Priority.ARCHIVE])[:size]

    def _is_due(self) -> bool:
        due_at = self._due_at()
        return due_at is not None and due_at <= asyncio.get_running_loop().time()

    def _due_at(self) -> float | None:
        """Return when the next batch starts: once it is full, or at its oldest item's arrival plus the delay."""
        if urgent := self._urgent():
            return self._full_or_late(urgent)
        if bulk := list(self._entries[Priority.ARCHIVE]):
            allowed = self._archive_policy.allowed_at(asyncio.get_running_loop().time())
            return max(self._full_or_late(bulk), allowed)
        return None

    def _full_or_late(self, entries: list[Entry[Item, Result]]) -> float:
        oldest = min([entry.arrived for entry in entries])
        return oldest if len(entries) >= self._max_batch_size else oldest + self._max_delay

    def _urgent(self) -> list[Entry[Item, Result]]:
        return [*self._entries[Priority.LIVE], *self._entries[Priority.SINGLE]]
