"""Helpers for asyncio: tasks that fail or end together, work with ordered results, threads that hold no end up."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Threads(ThreadPoolExecutor):
    """Threads for ``asyncio.to_thread``. One that hangs, as on a file of a lost disk, does not hold the end up."""

    def shutdown(self, *_: object, **__: object) -> None:
        """Return at once; the event loop, which calls this at its end, would wait for each thread."""
        super().shutdown(wait=False)


class FirstErrorTaskGroup(asyncio.TaskGroup):
    """A task group that raises the first error of its tasks instead of an ``ExceptionGroup`` of all errors.

    The group and the stack frames in its tracebacks refer to each other, and so keep the data of cancelled tasks alive
    until a full garbage collection.
    """

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await super().__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            first = group.exceptions[0]
            drop_tracebacks(group)
        else:
            return
        await _take_pending_cancellation()
        try:
            raise first
        finally:
            del first


async def _take_pending_cancellation() -> None:
    """Receive the cancellation that a group has sent to its own task again, where the task was being cancelled.

    From Python 3.13 on, a group that raises errors cancels a cancelled task once more, so that the next ``await`` ends
    it (https://github.com/python/cpython/issues/116720). Here the error already ends the call: the second cancellation
    would hit the clean-up after it, and then gRPC's own task. The task still counts as cancelled (``cancelling``).
    """
    task = asyncio.current_task()
    if task and task.cancelling():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)


async def to_its_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end, also if the caller is cancelled meanwhile, who then goes on with that."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


async def until_first_ends(*coroutines: Coroutine[Any, Any, object]) -> None:
    """Run coroutines until the first one ends, and cancel the others; an exception of the first one is raised."""
    tasks = [asyncio.create_task(each) for each in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


def drop_tracebacks(error: BaseException | None) -> None:
    """Remove the tracebacks of a handled error and of its causes, so that they do not keep the request in memory.

    Error and stack frames often form a reference cycle, which only a full garbage collection frees. Python starts one
    by the number of objects, whatever their size. With 15 refused messages of 6 MB a second, the service took 490 MiB
    instead of 138. Collecting every second still took 425 MiB, and stopped all answers for 13 ms each time.
    """
    while error is not None:
        earlier = error.__cause__ or error.__context__
        error.__traceback__ = error.__cause__ = error.__context__ = None
        error = earlier


async def in_order(
    items: AsyncIterator[Item] | Iterable[Item],
    work: Callable[[Item], Coroutine[Any, Any, Result]],
    send: Callable[[Result], Awaitable[None]],
    *,
    at_once: int,
    stop: asyncio.Event | None = None,
) -> None:
    """Work on several items at a time and send the results in the order of the items; cancelling drops all work.

    Args:
        items: read only while fewer than ``at_once`` items are unsent, which puts backpressure on a fast sender.
        work: computes the result of one item; an exception ends everything.
        send: sends one result.
        at_once: how many items may be in progress or wait to be sent.
        stop: once set, no more items are read; results of the items read before are still sent.

    Raises:
        Exception: the first one that ``items``, ``work`` or ``send`` raised.

    """
    begun: asyncio.Queue[asyncio.Task[Result] | None] = asyncio.Queue()
    room = asyncio.Semaphore(at_once - 1)  # acquired after each item, before reading the next

    async def receive(tasks: asyncio.TaskGroup) -> None:
        try:
            async for item in _each(items):
                begun.put_nowait(tasks.create_task(work(item)))
                await room.acquire()
        finally:
            begun.put_nowait(None)

    async def end_when_stopped(receiving: asyncio.Task[None], stop: asyncio.Event) -> None:
        await stop.wait()
        receiving.cancel()

    async with FirstErrorTaskGroup() as tasks:
        receiving = tasks.create_task(receive(tasks))
        watching = tasks.create_task(end_when_stopped(receiving, stop or asyncio.Event()))
        while (task := await begun.get()) is not None:
            await send(await task)
            room.release()
        watching.cancel()


async def _each(items: AsyncIterator[Item] | Iterable[Item]) -> AsyncIterator[Item]:
    if isinstance(items, AsyncIterator):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
