"""Many items of one client: several at once, answered in order, with bounded memory."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from service.tasks.group import Together

Item = TypeVar("Item")
Result = TypeVar("Result")


async def in_order(
    items: AsyncIterator[Item],
    work: Callable[[Item], Awaitable[Result]],
    send: Callable[[Result], Awaitable[None]],
    *,
    at_once: int,
    stop: asyncio.Event | None = None,
) -> None:
    """Send the result of every item, in the order of the items; cancelling it drops all work.

    Args:
        items: read only while fewer than ``at_once`` are unanswered, so that a fast sender is stalled by its transport.
        work: makes a result; what it raises ends everything.
        send: takes one result.
        at_once: how many items may be worked on, or hold a result that was not sent.
        stop: once set, no more items are read; those read already are answered.

    Raises:
        Exception: what ``items``, ``work`` or ``send`` raised first.

    """
    begun: asyncio.Queue[asyncio.Task[Result] | None] = asyncio.Queue()
    room = asyncio.Semaphore(at_once - 1)  # taken after an item, before the next one

    async def finish(item: Item) -> Result:
        return await work(item)

    async def receive(tasks: asyncio.TaskGroup) -> None:
        try:
            async for item in items:
                begun.put_nowait(tasks.create_task(finish(item)))
                await room.acquire()
        finally:
            begun.put_nowait(None)

    async def end_when_stopped(receiving: asyncio.Task[None], stop: asyncio.Event) -> None:
        await stop.wait()
        receiving.cancel()

    async with Together() as tasks:
        receiving = tasks.create_task(receive(tasks))
        watching = tasks.create_task(end_when_stopped(receiving, stop or asyncio.Event()))
        while (task := await begun.get()) is not None:
            await send(await task)
            room.release()
        watching.cancel()
