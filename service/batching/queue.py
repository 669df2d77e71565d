"""What waits for a device, and which of it goes next: the queue in front of a batcher."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, TypeVar

from service.batching.archive_policy import Bulk

Item = TypeVar("Item")
Result = TypeVar("Result")


class Priority(IntEnum):
    """Who goes first when a batch is formed."""

    LIVE = 0  # frames of a live stream
    SINGLE = 1  # single requests
    ARCHIVE = 2  # bulk that nobody watches; ``service.batching.archive_policy`` tells when it may go


@dataclass(slots=True)
class Batched(Generic[Result]):
    """What became of one item."""

    result: Result
    submitted: float  # time.perf_counter, seconds
    queue_seconds: float  # from submission until its batch was formed
    started: float  # on the device; time.perf_counter, seconds
    infer_seconds: float  # on the device, for the whole batch
    batch_size: int


@dataclass(eq=False, slots=True)
class Job(Generic[Item, Result]):
    """One item in flight; its answer rides with it."""

    item: Item
    priority: Priority
    arrived: float  # loop time, seconds
    future: asyncio.Future[Batched[Result]]
    on_start: Callable[[], None]
    submitted: float = field(default_factory=time.perf_counter)  # uvloop's own time has whole milliseconds only
    started: float = 0.0


class Waiting(Generic[Item, Result]):
    """Jobs that wait, by priority; a batch is due once it is full, or once its oldest member has waited long enough."""

    def __init__(self, max_batch_size: int, max_delay: float) -> None:
        self._max_batch_size = max_batch_size
        self._max_delay = max_delay  # seconds
        self._jobs: dict[Priority, dict[Job[Item, Result], None]] = {priority: {} for priority in Priority}
        self._bulk = Bulk()
        self._changed = asyncio.Event()
        self._pulling = asyncio.Lock()

    def __len__(self) -> int:
        return sum(map(len, self._jobs.values()))

    def all(self) -> list[Job[Item, Result]]:
        """Return every job that waits, those first that go first."""
        return [job for jobs in self._jobs.values() for job in jobs]

    def add(self, job: Job[Item, Result]) -> None:
        """Queue a job."""
        self._jobs[job.priority][job] = None
        if job.priority is Priority.LIVE:
            self._bulk.live(job.arrived)
        self._changed.set()

    def discard(self, job: Job[Item, Result]) -> None:
        """Take a job out, if it still waits."""
        self._jobs[job.priority].pop(job, None)

    async def next_batch(self) -> list[Job[Item, Result]]:
        """Wait until a batch is due, and take it out; may be empty, where all of it left in this very moment."""
        async with self._pulling:  # one slot forms a batch, the others queue behind it
            while not self._is_due():
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(self._due_at()):
                        await self._changed.wait()
            return self._taken(self._chosen())

    def answered(self, batch: Sequence[Job[Item, Result]], seconds: float) -> None:
        """Note that a batch left the device after so many seconds on it."""
        self._bulk.cost(len(batch), seconds)
        if any(job.priority is Priority.LIVE for job in batch):
            self._bulk.live_left(asyncio.get_running_loop().time())

    def _taken(self, batch: list[Job[Item, Result]]) -> list[Job[Item, Result]]:
        now = time.perf_counter()
        for job in batch:
            self.discard(job)
            job.started = now
            job.on_start()
        return [job for job in batch if not job.future.done()]  # who left in this very moment is not computed

    def _chosen(self) -> list[Job[Item, Result]]:
        """Return the members of the batch that is due: never bulk beside others, who would wait for it."""
        if urgent := self._urgent():
            return urgent[: self._max_batch_size]
        now = asyncio.get_running_loop().time()
        size = min(self._bulk.size(now), self._max_batch_size)
        self._bulk.started(now)
        return list(self._jobs[Priority.ARCHIVE])[:size]

    def _is_due(self) -> bool:
        due_at = self._due_at()
        return due_at is not None and due_at <= asyncio.get_running_loop().time()

    def _due_at(self) -> float | None:
        """Return when the next batch starts: once it is full, or at its oldest item's arrival plus the delay."""
        if urgent := self._urgent():
            return self._full_or_late(urgent)
        if bulk := list(self._jobs[Priority.ARCHIVE]):
            allowed = self._bulk.allowed_at(asyncio.get_running_loop().time())
            return max(self._full_or_late(bulk), allowed)
        return None

    def _full_or_late(self, jobs: list[Job[Item, Result]]) -> float:
        oldest = min(job.arrived for job in jobs)
        return oldest if len(jobs) >= self._max_batch_size else oldest + self._max_delay

    def _urgent(self) -> list[Job[Item, Result]]:
        return [job for priority, jobs in self._jobs.items() if priority is not Priority.ARCHIVE for job in jobs]
