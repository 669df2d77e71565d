"""The queue in front of the device: holds the waiting items by priority, and forms batches."""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

from service.batching.archive_policy import ArchivePolicy

SINGLE_SECONDS = 1.0  # after this wait behind live frames, one single request runs anyway

Item = TypeVar("Item")
Result = TypeVar("Result")


class Priority(IntEnum):
    """The order in which items go into a batch; lower values first."""

    LIVE = 0  # frames of a live stream
    SINGLE = 1  # single requests
    ARCHIVE = 2  # pictures of archives; ``service.batching.archive_policy`` decides when they may run


@dataclass(eq=False, slots=True, kw_only=True)
class Entry(Generic[Item, Result]):
    """One item from its admission to its result, with its times."""

    item: Item | None = None  # input of the device, once it is prepared
    priority: Priority = Priority.SINGLE
    deadline: float = math.inf  # loop time, seconds
    release: Callable[[], None] | None = None  # frees its place of admission; None once that is done
    arrived: float = 0.0  # when it entered the queue; loop time, seconds
    queued: float = 0.0  # the same moment; this and the following times by time.perf_counter, seconds
    started: float = 0.0  # when it left the queue
    computed: tuple[float, float] = (0.0, 0.0)  # begin and end of its batch on the device
    batch_size: int = 0
    result: Result | None = None
    answered: asyncio.Future[None] | None = None  # done once ``result`` is set; holds the error if it failed

    @property
    def is_over(self) -> bool:
        """Tell whether the entry is answered, cancelled or expired."""
        return self.answered is None or self.answered.done()


class Queue(Generic[Item, Result]):
    """Waiting entries by priority; a batch is due once it is full, or its oldest entry has waited for ``max_delay``."""

    def __init__(self, max_batch_size: int, max_delay: float) -> None:
        self._max_batch_size = max_batch_size
        self._max_delay = max_delay  # seconds
        self._entries: dict[Priority, dict[Entry[Item, Result], None]] = {priority: {} for priority in Priority}
        self._archive_policy = ArchivePolicy()
        self._single_at = -math.inf  # when a single request last left the queue; loop time
        self._changed = asyncio.Event()
        self._pulling = asyncio.Lock()

    def __len__(self) -> int:
        return sum(map(len, self._entries.values()))

    def all(self) -> list[Entry[Item, Result]]:
        """Return all waiting entries in the order of their priorities."""
        return [entry for entries in self._entries.values() for entry in entries]

    def add(self, entry: Entry[Item, Result]) -> None:
        """Add an entry; a waiting ``next_batch`` looks again at whether a batch is due."""
        self._entries[entry.priority][entry] = None
        self.seen(entry.priority, entry.arrived)
        self._changed.set()

    def seen(self, priority: Priority, now: float) -> None:
        """Record that a frame has come, also one that needs no inference: its stream goes on."""
        if priority is Priority.LIVE:
            self._archive_policy.live(now)

    def discard(self, entry: Entry[Item, Result]) -> None:
        """Remove an entry, if it is still in the queue."""
        self._entries[entry.priority].pop(entry, None)

    async def next_batch(self) -> list[Entry[Item, Result]]:
        """Wait until a batch is due, remove and return it; it is empty if the time for archives has just passed."""
        async with self._pulling:  # only one slot at a time forms a batch
            while not self._is_due():
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(self._due_at()):
                        await self._changed.wait()
            return self._taken(self._chosen())

    def answered(self, batch: Sequence[Entry[Item, Result]], frame_seconds: float) -> None:
        """Record that a batch left the device, and the recent device time of a frame."""
        self._archive_policy.frame_seconds = frame_seconds
        if Priority.LIVE in {entry.priority for entry in batch}:
            self._archive_policy.live_left(asyncio.get_running_loop().time())

    def _taken(self, batch: list[Entry[Item, Result]]) -> list[Entry[Item, Result]]:
        now = time.perf_counter()
        for entry in batch:
            self.discard(entry)
            entry.started = now
            if entry.release is not None:
                entry.release()
                entry.release = None
        return batch

    def _chosen(self) -> list[Entry[Item, Result]]:
        """Return the entries of the next batch; archive frames get their own batches, so that they delay no others."""
        now, urgent = asyncio.get_running_loop().time(), self._urgent()
        if urgent and not self._archive_is_starved(now):
            return self._with_single(urgent[: self._max_batch_size], now)
        archived = self._waiting(Priority.ARCHIVE)
        batch = archived[: 1 if urgent else min(self._archive_policy.size(now), self._max_batch_size)]
        if batch:
            self._archive_policy.started(now)
        return batch

    def _archive_is_starved(self, now: float) -> bool:
        oldest = next(iter(self._waiting(Priority.ARCHIVE)), None)
        return oldest is not None and self._archive_policy.starved(now, oldest.arrived)

    def _with_single(self, batch: list[Entry[Item, Result]], now: float) -> list[Entry[Item, Result]]:
        """Give the last place of a batch of live frames to a single request that has waited, at most once a second."""
        single = next(iter(self._waiting(Priority.SINGLE)), None)
        if single is not None and now - max(single.arrived, self._single_at) >= SINGLE_SECONDS and single not in batch:
            batch[-1] = single
        if batch[-1].priority is Priority.SINGLE:
            self._single_at = now
        return batch

    def _is_due(self) -> bool:
        due_at = self._due_at()
        return due_at is not None and due_at <= asyncio.get_running_loop().time()

    def _due_at(self) -> float | None:
        """Return when the next batch is due, loop time; None while nothing waits."""
        if urgent := self._urgent():
            return self._full_or_late(urgent)
        if archived := self._waiting(Priority.ARCHIVE):
            allowed = self._archive_policy.allowed_at(asyncio.get_running_loop().time())
            return max(self._full_or_late(archived), allowed)
        return None

    def _full_or_late(self, entries: list[Entry[Item, Result]]) -> float:
        oldest = min([entry.arrived for entry in entries])
        return oldest if len(entries) >= self._max_batch_size else oldest + self._max_delay

    def _urgent(self) -> list[Entry[Item, Result]]:
        return [*self._waiting(Priority.LIVE), *self._waiting(Priority.SINGLE)]

    def _waiting(self, priority: Priority) -> list[Entry[Item, Result]]:
        """Return the entries of a priority but those just cancelled or expired, which their callers will discard."""
        return [entry for entry in self._entries[priority] if not entry.is_over]
