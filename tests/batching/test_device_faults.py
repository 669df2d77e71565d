"""A device that fails for good is told from items that it fails on, and nothing is lost or kept because of either."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Sequence

import pytest

from service.batching.batcher import MAX_FAILED, Batcher
from service.errors import InferenceFailed, NotReady
from tests.support.batching.items import POISON, Device, submit
from tests.support.serving import PATIENCE

GOOD = 0  # an item that a sound device does not fail on


def broken(items: Sequence[int]) -> list[int]:
    raise ValueError("the device is gone")


async def test_a_device_that_fails_on_everything_counts_as_dead_once_it_fails_on_the_probe() -> None:
    async with Batcher(broken, max_batch_size=4, probe=GOOD) as batcher:
        for item in range(MAX_FAILED):
            assert not batcher.dead.is_set()
            with pytest.raises(InferenceFailed):
                await submit(batcher, item)
        await asyncio.wait_for(batcher.dead.wait(), PATIENCE)


async def test_items_that_fail_however_many_do_not_make_the_device_dead() -> None:
    device = Device()
    async with Batcher(device, max_batch_size=1, probe=GOOD) as batcher:
        for _ in range(5 * MAX_FAILED):
            with pytest.raises(InferenceFailed):
                await submit(batcher, POISON)
        assert await submit(batcher, 1) == 2
        assert not batcher.dead.is_set()
    assert device.batches.count([GOOD]) == 5


async def test_failures_with_successes_between_them_probe_nothing() -> None:
    device = Device()
    async with Batcher(device, max_batch_size=1, probe=GOOD) as batcher:
        for item in [POISON, POISON, POISON, 1] * MAX_FAILED:
            await asyncio.gather(submit(batcher, item), return_exceptions=True)
    assert [GOOD] not in device.batches


async def test_when_the_batcher_ends_while_a_failed_batch_is_repeated_every_member_is_told() -> None:
    alone, go_on = threading.Event(), threading.Event()

    def infer(items: Sequence[int]) -> list[int]:
        if len(items) > 1:
            raise ValueError("together")
        alone.set()
        go_on.wait(PATIENCE)
        return list(items)

    async with Batcher(infer, max_batch_size=3, max_queue_delay=PATIENCE) as batcher:
        tasks = [submit(batcher, item) for item in (1, 2, 3)]
        await asyncio.to_thread(alone.wait, PATIENCE)
        asyncio.get_running_loop().call_later(0.05, go_on.set)
    outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), PATIENCE)
    assert all(isinstance(outcome, NotReady) for outcome in outcomes)


class Picture:
    """An item that a weak reference can watch."""


async def test_an_idle_slot_keeps_no_item_whose_client_has_left() -> None:
    device = Device()

    def infer(items: Sequence[Picture]) -> list[int]:
        device([1])
        return [1 for _ in items]

    gc.disable()
    try:
        async with Batcher[Picture, int](infer, max_batch_size=1) as batcher:
            device.open.clear()
            picture = Picture()
            watched = weakref.ref(picture)
            task = submit(batcher, picture)  # type: ignore[arg-type]
            del picture
            await device.is_entered()
            task.cancel()
            await asyncio.wait([task])
            del task
            device.open.set()
            async with asyncio.timeout(PATIENCE):
                while watched() is not None:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.01)
    finally:
        gc.enable()
