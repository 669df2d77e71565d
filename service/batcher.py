"""Single items <-> batches. Knows no images, no torch and no HTTP.

Each slot is a task that pulls a batch when its device is free, runs it on its device thread, and answers every
member; the batch grows for as long as the slots are busy. What can go wrong stays with whom it concerns:

* a member that left (cancelled) or ran out of time leaves the queue at once, by its own timer;
* a batch that raises or hangs is repeated member by member, so that only the poison one fails;
* a call that hangs leaves its thread behind, and the slot goes on with a new one.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, Self, TypeVar

from service.bulk import Bulk
from service.device_thread import DeviceThread
from service.errors import DeadlineExceeded, InferenceFailed, NotReady
from service.patience import HANG_SECONDS, Patience

Item = TypeVar("Item")
Result = TypeVar("Result")
Infer = Callable[[Sequence[Item]], Sequence[Result]]

MAX_ABANDONED = 4  # hung threads left behind before the device counts as dead

log = logging.getLogger(__name__)


class Priority(IntEnum):
    """Who goes first when a batch is formed."""

    LIVE = 0  # frames of a live stream
    SINGLE = 1  # single requests
    ARCHIVE = 2  # bulk that nobody watches; ``service.bulk`` tells when it may go


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


class Batcher(Generic[Item, Result]):
    """A queue in front of a device that works on batches; use it as ``async with``.

    ``infer`` maps a sequence of items to as many results on a device thread. It may be replaced at any time: it is
    read once for each batch, so no batch mixes two of them.
    """

    def __init__(
        self,
        infer: Infer[Item, Result],
        *,
        max_batch_size: int,
        max_queue_delay: float = 0.0,
        slots: int = 1,
        hang_seconds: float = HANG_SECONDS,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        self.infer = infer
        self.abandoned = 0  # hung calls left behind, which have not come back
        self.dead = asyncio.Event()  # set when inference does not answer any more
        self._max_batch_size = max_batch_size
        self._max_queue_delay = max_queue_delay  # seconds
        self._patience = Patience(hang_seconds)
        self._on_batch = on_batch
        self._waiting: dict[Priority, dict[Job[Item, Result], None]] = {priority: {} for priority in Priority}
        self._bulk = Bulk()
        self._changed = asyncio.Event()
        self._pulling = asyncio.Lock()
        self._slots = slots
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._slot(number), name=f"slot-{number}") for number in range(self._slots)]
        for task in self._tasks:
            task.add_done_callback(lambda _: self.dead.set())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        _fail(self._jobs(), _stopped())

    def __len__(self) -> int:
        """Count the items that wait for a device."""
        return sum(map(len, self._waiting.values()))

    async def submit(
        self,
        item: Item,
        *,
        deadline: float,
        priority: Priority = Priority.SINGLE,
        on_start: Callable[[], None] = lambda: None,
    ) -> Batched[Result]:
        """Queue one item and wait for its result; cancelling the caller withdraws it.

        Args:
            item: what ``infer`` takes.
            deadline: loop time, seconds, at which waiting ends.
            priority: who goes first.
            on_start: called when the item leaves the queue for the device.

        Raises:
            DeadlineExceeded: the deadline passed first.
            InferenceFailed: ``infer`` failed on this very item.

        """
        loop = asyncio.get_running_loop()
        job = Job(item, priority, loop.time(), loop.create_future(), on_start)
        self._waiting[priority][job] = None
        if priority is Priority.LIVE:
            self._bulk.live(job.arrived)
        self._changed.set()
        try:
            async with asyncio.timeout_at(deadline):
                return await job.future
        except TimeoutError:
            raise DeadlineExceeded("the frame was not segmented in time; retry, or allow more time") from None
        finally:
            self._waiting[priority].pop(job, None)

    async def _slot(self, number: int) -> None:
        thread = _started(number)
        try:
            while True:
                async with self._pulling:  # one slot forms a batch, the others queue behind it
                    batch = await self._next_batch()
                if batch:
                    thread = await self._run(thread, number, batch)
        finally:
            thread.stop()

    async def _next_batch(self) -> list[Job[Item, Result]]:
        """Wait until a batch is due, and take it out of the queue."""
        while not self._is_due():
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._due_at()):
                    await self._changed.wait()
        now = time.perf_counter()
        batch = self._chosen()
        for job in batch:
            del self._waiting[job.priority][job]
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
        return list(self._waiting[Priority.ARCHIVE])[:size]

    def _is_due(self) -> bool:
        due_at = self._due_at()
        return due_at is not None and due_at <= asyncio.get_running_loop().time()

    def _due_at(self) -> float | None:
        """Return when the next batch starts: once it is full, or at its oldest item's arrival plus the delay."""
        if urgent := self._urgent():
            return self._full_or_late(urgent)
        if bulk := list(self._waiting[Priority.ARCHIVE]):
            allowed = self._bulk.allowed_at(asyncio.get_running_loop().time())
            return max(self._full_or_late(bulk), allowed)
        return None

    def _full_or_late(self, jobs: list[Job[Item, Result]]) -> float:
        oldest = min(job.arrived for job in jobs)
        return oldest if len(jobs) >= self._max_batch_size else oldest + self._max_queue_delay

    def _urgent(self) -> list[Job[Item, Result]]:
        return [job for priority, jobs in self._waiting.items() if priority is not Priority.ARCHIVE for job in jobs]

    def _jobs(self) -> list[Job[Item, Result]]:
        return [job for jobs in self._waiting.values() for job in jobs]

    async def _run(self, thread: DeviceThread, number: int, batch: list[Job[Item, Result]]) -> DeviceThread:
        """Answer every member of a batch; return the thread that the slot goes on with."""
        started = time.perf_counter()
        self._on_batch(len(batch))
        call = thread.submit(_checked, self.infer, [job.item for job in batch])
        patience = self._patience.seconds(len(batch))
        try:
            async with asyncio.timeout(patience):
                results = await call
        except asyncio.CancelledError:
            _fail(batch, _stopped())
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            if call.cancelled():  # by the time-out: the thread never came back
                thread = self._replace(thread, number, len(batch), started)
                reason = f"no answer within {patience:.1f} s"
            return await self._repeat_singly(thread, number, batch, reason)
        seconds = time.perf_counter() - started
        self._patience.learn(len(batch), seconds)
        self._bulk.cost(len(batch), seconds)
        if any(job.priority is Priority.LIVE for job in batch):
            self._bulk.live_left(asyncio.get_running_loop().time())
        for job, result in zip(batch, results, strict=True):
            if not job.future.done():
                job.future.set_result(
                    Batched(result, job.submitted, job.started - job.submitted, started, seconds, len(batch))
                )
        return thread

    async def _repeat_singly(
        self, thread: DeviceThread, number: int, batch: list[Job[Item, Result]], reason: str
    ) -> DeviceThread:
        if len(batch) == 1:
            log.error("inference failed on one frame: %s", reason)
            _fail(batch, InferenceFailed("the network failed on this frame; the service's log has the cause"))
            return thread
        log.warning("a batch of %d failed (%s); its frames are tried one by one", len(batch), reason)
        for job in batch:
            if not job.future.done():  # it may have left meanwhile
                thread = await self._run(thread, number, [job])
        return thread

    def _replace(self, thread: DeviceThread, number: int, frames: int, started: float) -> DeviceThread:
        self.abandoned += 1
        late = thread.submit(_nothing)  # its turn comes when the hung call returns
        late.add_done_callback(lambda _: self._came_back(frames, started))
        thread.stop()
        log.error("inference hangs; its thread is left behind (%d so far)", self.abandoned)
        if self.abandoned >= MAX_ABANDONED:
            self.dead.set()
        return _started(number)

    def _came_back(self, frames: int, started: float) -> None:
        self.abandoned -= 1
        seconds = time.perf_counter() - started
        self._patience.learn(frames, seconds)
        log.warning("a call came back that counted as hung: %d frames took %.0f s; slow, not stuck", frames, seconds)


def _nothing() -> None: ...


def _started(number: int) -> DeviceThread:
    thread = DeviceThread(f"device-{number}")
    thread.start()
    return thread


def _checked(infer: Infer[Item, Result], items: Sequence[Item]) -> Sequence[Result]:
    results = infer(items)
    if len(results) != len(items):
        raise RuntimeError(f"{len(items)} frames gave {len(results)} results")
    return results


def _fail(jobs: Sequence[Job[Item, Result]], error: Exception) -> None:
    for job in jobs:
        if not job.future.done():
            job.future.set_exception(error)


def _stopped() -> NotReady:
    return NotReady("the service stopped before this frame was segmented; send it again")
