"""The task group whose first error its caller gets."""

import asyncio

import pytest

from service.tasks import FirstErrorTaskGroup


async def failing(begun: asyncio.Event, *, at_once: bool = False) -> None:
    """Wait in a group whose task fails, at once or when it is cancelled."""

    async def fail() -> None:
        try:
            if not at_once:
                await asyncio.Event().wait()
        finally:
            raise LookupError("the first")

    async with FirstErrorTaskGroup() as tasks:
        tasks.create_task(fail())
        await asyncio.sleep(0)
        begun.set()
        await asyncio.Event().wait()


async def test_the_first_error_of_the_tasks_is_raised_by_itself() -> None:
    with pytest.raises(LookupError, match="the first"):
        await failing(asyncio.Event(), at_once=True)


async def test_a_cancellation_that_ends_in_an_error_is_delivered_once() -> None:
    """Python 3.13 and later cancel the task again where the group raises; the next await of the caller would end."""

    async def caller() -> int:
        with pytest.raises(LookupError, match="the first"):
            await failing(begun)
        await asyncio.sleep(0)
        current = asyncio.current_task()
        assert current
        return current.cancelling()

    begun = asyncio.Event()
    task = asyncio.create_task(caller())
    await begun.wait()
    task.cancel()
    assert await task == 1, "the request to cancel still counts, for a timeout or another group around this one"


async def test_a_cancellation_after_an_error_is_delivered() -> None:
    async def caller() -> None:
        with pytest.raises(LookupError, match="the first"):
            await failing(asyncio.Event(), at_once=True)
        failed.set()
        await asyncio.Event().wait()

    failed = asyncio.Event()
    task = asyncio.create_task(caller())
    await failed.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_timeout_around_the_group_leaves_no_cancellation_behind() -> None:
    with pytest.raises(LookupError, match="the first"):
        await asyncio.wait_for(failing(asyncio.Event()), 0.01)
    current = asyncio.current_task()
    assert current
    assert not current.cancelling()
    await asyncio.sleep(0)
