"""Runs single items in batches on a device. It knows nothing about images, PyTorch or HTTP.

Each slot is a task that takes a batch from the queue when its device is free, runs it on its device thread, and answers
every member. While all slots are busy, the next batch grows. A failure affects only the items that cause it:

* an item that is cancelled or expires leaves the queue at once, by its own timer;
* a batch that raises or hangs is repeated item by item, so that only the bad item fails;
* a thread whose call hangs is abandoned, and the slot continues with a new thread;
* after some failures in a row, a frame that is known to be good decides whether the device itself has failed.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Self

from service.batching.device_thread import device_thread
from service.batching.queue import Entry, Item, Queue, Result
from service.errors import DeadlineExceeded, InferenceFailed, NotReady
from service.tasks import drop_tracebacks

Infer = Callable[[Sequence[Item]], Sequence[Result]]

MAX_ABANDONED = 4  # abandoned threads at which the device counts as dead
MAX_FAILED = 4  # single items in a row that fail, at which the device is probed

HANG_SECONDS = 10.0  # no call counts as hung before this; the largest batch takes 3 s on two slow cores
MOST_HANG_SECONDS = 60.0  # upper limit for slow devices, since an abandoned batch is computed again
HANG_FACTOR = 8.0  # a call counts as hung when it takes this many times the recent time of its frames
PACE_MEMORY = 0.9  # decay of the slowest pace with each call
PACE_WEIGHT = 1 / 8  # of a new call in the moving average

log = logging.getLogger(__name__)


class Pace:
    """The recent time of a frame on the device, learned from every call that returns, also from late ones."""

    def __init__(self, least_hang_seconds: float = HANG_SECONDS) -> None:
        self.frame_seconds = 0.0  # moving average; 0 while unknown
        self._least_hang_seconds = least_hang_seconds
        self._slowest = 0.0  # seconds per frame, of the slowest recent call

    def learn(self, frames: int, seconds: float) -> None:
        """Record the duration of a call with ``frames`` frames."""
        each = seconds / frames
        known = self.frame_seconds or each
        self.frame_seconds = known + (each - known) * PACE_WEIGHT
        self._slowest = max(PACE_MEMORY * self._slowest, each)

    def hang_seconds(self, frames: int) -> float:
        """Return how long a call with ``frames`` frames may take before it counts as hung."""
        return max(self._least_hang_seconds, min(HANG_FACTOR * self._slowest * frames, MOST_HANG_SECONDS))


class Batcher(Generic[Item, Result]):
    """Queues items and runs them in batches on a device; use it as ``async with``.

    Args:
        infer: maps a sequence of items to as many results, on a device thread. It may be replaced at any time (hot
            reload); each batch uses one function.
        max_batch_size: items in one batch.
        max_queue_delay: how long an item may wait for the batch to fill, seconds.
        slots: batches on the device at once.
        hang_seconds: no call counts as hung before this.
        probe: an item that ``infer`` can only fail on if the device has failed; None: failures never mean that.
        on_batch: called with the size of each batch.

    """

    def __init__(
        self,
        infer: Infer[Item, Result],
        *,
        max_batch_size: int,
        max_queue_delay: float = 0.0,
        slots: int = 1,
        hang_seconds: float = HANG_SECONDS,
        probe: Item | None = None,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        self.infer = infer
        self.abandoned = 0  # threads whose hung call has not returned
        self.dead = asyncio.Event()  # set when inference no longer answers
        self._failed = 0  # single items in a row
        self._probe = probe
        self._pace = Pace(hang_seconds)
        self._on_batch = on_batch
        self._queue: Queue[Item, Result] = Queue(max_batch_size, max_queue_delay)
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
        _fail(self._queue.all(), _stopped())

    def __len__(self) -> int:
        """Return the number of items in the queue."""
        return len(self._queue)

    async def submit(self, entry: Entry[Item, Result]) -> None:
        """Queue an entry with its item set, and wait until its result is set; cancelling the caller withdraws it.

        Raises:
            DeadlineExceeded: the entry's deadline passed first.
            InferenceFailed: ``infer`` failed on this item, also when run alone.
            NotReady: the batcher was closed first.

        """
        loop = asyncio.get_running_loop()
        entry.arrived, entry.queued, entry.answered = loop.time(), time.perf_counter(), loop.create_future()
        self._queue.add(entry)
        try:
            async with asyncio.timeout_at(entry.deadline):
                await entry.answered
        except TimeoutError:
            raise DeadlineExceeded from None
        finally:
            if not entry.started:
                self._queue.discard(entry)
            entry.answered = None  # its error refers to this entry: breaks the reference cycle

    def spare(self, entry: Entry[Item, Result]) -> None:
        """Record an entry that needs no inference, since it has its result already."""
        self._queue.seen(entry.priority, asyncio.get_running_loop().time())

    async def _slot(self, number: int) -> None:
        thread = device_thread(str(number))
        try:
            while True:
                if batch := await self._queue.next_batch():
                    thread = await self._run(thread, number, batch)
                    if self._failed >= MAX_FAILED and self._probe is not None:
                        await self._probe_device(thread, self._probe)
                del batch  # or it would keep the items of clients that have left until the next one
        finally:
            thread.shutdown(wait=False)

    async def _run(
        self, thread: ThreadPoolExecutor, number: int, batch: list[Entry[Item, Result]]
    ) -> ThreadPoolExecutor:
        """Run a batch and answer its members; return the thread for the slot's next batch, a new one after a hang."""
        started = time.perf_counter()
        self._on_batch(len(batch))
        items = [entry.item for entry in batch if entry.item is not None]
        call = asyncio.get_running_loop().run_in_executor(thread, _checked, self.infer, items)
        timeout = self._pace.hang_seconds(len(batch))
        try:
            async with asyncio.timeout(timeout):
                results = await call
        except asyncio.CancelledError:
            _fail(batch, _stopped())
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            if call.cancelled():  # by the timeout: the call has not returned
                thread = self._replace(thread, number, len(batch), started)
                reason = f"no answer within {timeout:.1f} s"
            drop_tracebacks(error)  # its frames hold the call that holds it, the batch, and weights replaced since
            return await self._repeat_singly(thread, number, batch, reason)
        self._failed = 0
        ended = time.perf_counter()
        self._pace.learn(len(batch), ended - started)
        self._queue.answered(batch, self._pace.frame_seconds)
        for entry, result in zip(batch, results, strict=True):
            if entry.answered is not None and not entry.answered.done():
                entry.result, entry.computed, entry.batch_size = result, (started, ended), len(batch)
                entry.answered.set_result(None)
        return thread

    async def _repeat_singly(
        self, thread: ThreadPoolExecutor, number: int, batch: list[Entry[Item, Result]], reason: str
    ) -> ThreadPoolExecutor:
        if len(batch) == 1:
            self._failed += 1
            log.error("inference failed on a single frame: %s", reason)
            _fail(
                batch,
                InferenceFailed(
                    "the network failed on this frame; send another one, or ask the operator: the log has the cause"
                ),
            )
            return thread
        log.warning("a batch of %d frames failed (%s); retrying them one by one", len(batch), reason)
        try:
            for entry in batch:
                if not entry.is_over:  # cancelled or expired in the meantime
                    thread = await self._run(thread, number, [entry])
        except asyncio.CancelledError:
            _fail(batch, _stopped())
            raise
        return thread

    async def _probe_device(self, thread: ThreadPoolExecutor, item: Item) -> None:
        """Count the device as dead if it fails on the probe as well; a hang is left to the next batch."""
        self._failed = 0
        call = asyncio.get_running_loop().run_in_executor(thread, _checked, self.infer, [item])
        try:
            async with asyncio.timeout(self._pace.hang_seconds(1)):
                await call
        except TimeoutError:
            return
        except Exception as error:
            drop_tracebacks(error)
            log.error("the device fails on every frame (%s: %s)", type(error).__name__, error)
            self.dead.set()

    def _replace(self, thread: ThreadPoolExecutor, number: int, frames: int, started: float) -> ThreadPoolExecutor:
        self.abandoned += 1
        late = asyncio.get_running_loop().run_in_executor(thread, _nothing)  # runs when the hung call returns
        late.add_done_callback(lambda _: self._came_back(frames, started))
        thread.shutdown(wait=False)
        log.error("inference hangs; its thread is abandoned (%d so far)", self.abandoned)
        if self.abandoned >= MAX_ABANDONED:
            self.dead.set()
        return device_thread(str(number))

    def _came_back(self, frames: int, started: float) -> None:
        self.abandoned -= 1
        seconds = time.perf_counter() - started
        self._pace.learn(frames, seconds)
        log.warning(
            "a device call that was abandoned as hung has returned: %d frames took %.0f s; the device is slow",
            frames,
            seconds,
        )


def _nothing() -> None: ...


def _checked(infer: Infer[Item, Result], items: Sequence[Item]) -> Sequence[Result]:
    results = infer(items)
    if len(results) != len(items):
        raise RuntimeError(f"{len(items)} frames gave {len(results)} results")
    return results


def _fail(entries: Sequence[Entry[Item, Result]], error: Exception) -> None:
    for entry in entries:
        if entry.answered is not None and not entry.answered.done():
            entry.answered.set_exception(error)


def _stopped() -> NotReady:
    return NotReady("the service stopped before this frame was segmented; send it again")
