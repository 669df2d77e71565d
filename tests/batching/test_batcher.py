"""The batcher's promises: batches grow, faults stay with whom they concern, nobody waits for ever."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.batching.batcher import MAX_ABANDONED, Batcher
from service.batching.queue import Priority
from service.errors import DeadlineExceeded, InferenceFailed, NotReady, ServiceError
from tests.support.batching.items import FOREVER, POISON, Device, settle, submit
from tests.support.patching import Patches
from tests.support.serving import PATIENCE, until


@pytest.mark.parametrize("slots", [1, 2])
async def test_every_caller_gets_its_own_result(slots: int) -> None:
    async with Batcher(Device(), max_batch_size=4, slots=slots) as batcher:
        tasks = [submit(batcher, item) for item in range(100)]
        assert await asyncio.gather(*tasks) == [2 * item for item in range(100)]
        assert len(batcher) == 0


async def test_a_batch_grows_while_the_device_is_busy_up_to_its_limit() -> None:
    device = Device()
    device.open.clear()
    async with Batcher(device, max_batch_size=4) as batcher:
        tasks = [submit(batcher, 0)]
        await device.is_entered()
        tasks += [submit(batcher, item) for item in range(1, 7)]
        await settle()
        assert len(batcher) == 6
        device.open.set()
        await asyncio.gather(*tasks)
    assert device.batches == [[0], [1, 2, 3, 4], [5, 6]]


async def test_two_slots_run_two_batches_at_once() -> None:
    device = Device()
    device.open.clear()
    async with Batcher(device, max_batch_size=1, slots=2) as batcher:
        tasks = [submit(batcher, item) for item in (1, 2)]
        await device.is_entered()
        await device.is_entered()
        device.open.set()
        assert await asyncio.gather(*tasks) == [2, 4]


async def test_the_delay_gathers_a_batch_and_a_full_one_does_not_wait_for_it() -> None:
    device = Device()
    async with Batcher(device, max_batch_size=3, max_queue_delay=FOREVER) as batcher:
        tasks = [submit(batcher, item) for item in range(2)]
        await settle()
        assert device.batches == []
        tasks.append(submit(batcher, 2))
        await asyncio.gather(*tasks)
    assert device.batches == [[0, 1, 2]]


async def test_the_delay_ends_for_a_batch_that_does_not_fill() -> None:
    async with Batcher(Device(), max_batch_size=3, max_queue_delay=0.01) as batcher:
        assert await submit(batcher, 5) == 10


async def test_live_frames_go_first_and_archives_last() -> None:
    device = Device()
    device.open.clear()
    async with Batcher(device, max_batch_size=1) as batcher:
        tasks = [submit(batcher, 0)]
        await device.is_entered()
        order = (Priority.ARCHIVE, Priority.SINGLE, Priority.LIVE)
        tasks += [submit(batcher, item, priority=priority) for item, priority in enumerate(order, 1)]
        await settle()
        device.open.set()
        await asyncio.gather(*tasks)
    assert device.batches == [[0], [3], [2], [1]]


async def test_archives_never_share_a_batch_with_others_who_would_wait_for_them() -> None:
    device = Device()
    device.open.clear()
    async with Batcher(device, max_batch_size=8) as batcher:
        tasks = [submit(batcher, 0)]
        await device.is_entered()
        order = (Priority.ARCHIVE, Priority.SINGLE, Priority.LIVE, Priority.ARCHIVE)
        tasks += [submit(batcher, item, priority=priority) for item, priority in enumerate(order, 1)]
        await settle()
        device.open.set()
        await asyncio.gather(*tasks)
    assert device.batches[:2] == [[0], [3, 2]]
    assert sorted(item for batch in device.batches[2:] for item in batch) == [1, 4]


async def test_an_archive_waits_beside_a_stream_although_the_device_is_free() -> None:
    device = Device()
    async with Batcher(device, max_batch_size=8) as batcher:
        await submit(batcher, 0, priority=Priority.ARCHIVE)
        await submit(batcher, 1, priority=Priority.LIVE)
        archive = submit(batcher, 2, priority=Priority.ARCHIVE)
        await settle()
        await submit(batcher, 3, priority=Priority.LIVE)
        await archive  # once the stream counts as over
    assert device.batches == [[0], [1], [3], [2]]


async def test_a_cancelled_item_leaves_the_queue_at_once_and_is_never_computed() -> None:
    device = Device()
    device.open.clear()
    async with Batcher(device, max_batch_size=4) as batcher:
        first = submit(batcher, 0)
        await device.is_entered()
        leaver, neighbour = submit(batcher, 1), submit(batcher, 2)
        await settle()
        leaver.cancel()
        await settle()
        assert len(batcher) == 1
        device.open.set()
        assert await asyncio.gather(first, neighbour) == [0, 4]
    assert device.batches == [[0], [2]]


async def test_cancelling_a_running_item_does_not_strand_its_neighbours() -> None:
    device = Device()
    device.open.clear()
    async with Batcher(device, max_batch_size=2, max_queue_delay=FOREVER) as batcher:
        leaver, neighbour = submit(batcher, 1), submit(batcher, 2)
        await device.is_entered()
        leaver.cancel()
        await settle()
        device.open.set()
        assert await neighbour == 4


async def test_a_waiting_item_expires_by_its_own_timer_while_the_device_is_busy() -> None:
    device = Device()
    device.open.clear()
    async with Batcher(device, max_batch_size=4) as batcher:
        first = submit(batcher, 0)
        await device.is_entered()
        with pytest.raises(DeadlineExceeded):
            await submit(batcher, 1, deadline=asyncio.get_running_loop().time() + 0.01)
        assert len(batcher) == 0
        device.open.set()
        assert await first == 0
    assert device.batches == [[0]]


@pytest.mark.parametrize("slots", [1, 2])
async def test_a_poison_item_fails_alone_and_its_batch_mates_are_answered(slots: int) -> None:
    device = Device()
    async with Batcher(device, max_batch_size=4, max_queue_delay=FOREVER, slots=slots) as batcher:
        tasks = [submit(batcher, item) for item in (1, POISON, 2, 3)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results.pop(1), InferenceFailed)
        assert results == [2, 4, 6]
        tasks = [submit(batcher, item) for item in (5, 6, 7, 8)]
        assert await asyncio.gather(*tasks) == [10, 12, 14, 16]


async def test_too_few_results_are_a_failure_and_no_mix_up() -> None:
    async with Batcher[int, int](lambda items: [0], max_batch_size=2, max_queue_delay=FOREVER) as batcher:
        tasks = [submit(batcher, item) for item in (1, 2)]
        assert await asyncio.gather(*tasks) == [0, 0]  # each was tried alone, where one result is right


@pytest.mark.parametrize("slots", [1, 2])
async def test_a_call_that_hangs_is_left_behind_and_the_slot_goes_on(slots: int) -> None:
    stuck = threading.Event()

    def infer(items: Sequence[int]) -> list[int]:
        if POISON in items:
            stuck.wait(FOREVER)
        return list(items)

    async with Batcher(infer, max_batch_size=2, max_queue_delay=0.01, slots=slots, hang_seconds=0.5) as batcher:
        hanging, mate = submit(batcher, POISON), submit(batcher, 1)
        assert await mate == 1  # repeated alone on a new thread
        with pytest.raises(InferenceFailed):
            await hanging
        assert await submit(batcher, 2) == 2
        assert batcher.abandoned == 2  # the batch, and the poison item alone
        assert not batcher.dead.is_set()
    stuck.set()


async def test_inference_counts_as_dead_after_too_many_hung_calls() -> None:
    stuck = threading.Event()

    def infer(items: Sequence[int]) -> list[int]:
        stuck.wait(FOREVER)
        return list(items)

    async with Batcher(infer, max_batch_size=1, hang_seconds=0.01) as batcher:
        for item in range(MAX_ABANDONED):
            with pytest.raises(InferenceFailed):
                await submit(batcher, item)
        assert batcher.dead.is_set()
        stuck.set()


async def test_inference_counts_as_dead_once_a_slot_has_ended_by_a_fault_of_its_own() -> None:
    def fail(size: int) -> None:
        raise KeyError("a fault")

    async with Batcher(Device(), max_batch_size=1, slots=2, on_batch=fail) as batcher:
        waiting = submit(batcher, 1)
        async with asyncio.timeout(PATIENCE):
            await batcher.dead.wait()
        waiting.cancel()


async def test_slow_calls_that_come_back_do_not_add_up_to_a_dead_device(patched: Patches) -> None:
    patched("service.batching.batcher", "MOST_HANG_SECONDS", 0.01)  # or each would get eight times the last one's time
    held = threading.Semaphore(0)

    def infer(items: Sequence[int]) -> list[int]:
        held.acquire(timeout=FOREVER)
        return list(items)

    async with Batcher(infer, max_batch_size=1, hang_seconds=0.01) as batcher:
        for item in range(MAX_ABANDONED + 1):
            with pytest.raises(InferenceFailed):
                await submit(batcher, item)
            held.release()
            await until(lambda: not batcher.abandoned)
        assert not batcher.dead.is_set()


async def test_after_a_call_that_came_back_late_the_next_ones_get_its_time() -> None:
    def infer(items: Sequence[int]) -> list[int]:
        time.sleep(0.3)
        return list(items)

    async with Batcher(infer, max_batch_size=1, hang_seconds=0.05) as batcher:
        with pytest.raises(InferenceFailed):
            await submit(batcher, 0)
        await until(lambda: not batcher.abandoned)
        assert await submit(batcher, 1) == 1


async def test_a_device_that_is_slow_for_each_item_is_not_taken_for_one_that_hangs() -> None:
    def infer(items: Sequence[int]) -> list[int]:
        time.sleep(0.3 * len(items))
        return list(items)

    sizes: list[int] = []
    async with Batcher(
        infer, max_batch_size=4, max_queue_delay=0.1, hang_seconds=1.0, on_batch=sizes.append
    ) as batcher:
        await submit(batcher, 0)  # shows its pace
        assert await asyncio.gather(*(submit(batcher, item) for item in range(4))) == [0, 1, 2, 3]
    assert sizes == [1, 4]  # given up, the batch would have been repeated


async def test_a_new_predictor_takes_over_between_two_batches() -> None:
    device = Device()
    device.open.clear()
    async with Batcher(device, max_batch_size=2, max_queue_delay=FOREVER) as batcher:
        old = [submit(batcher, item) for item in (1, 2)]
        await device.is_entered()
        batcher.infer = lambda items: [10 * item for item in items]
        new = [submit(batcher, item) for item in (3, 4)]
        device.open.set()
        assert await asyncio.gather(*old, *new) == [2, 4, 30, 40]


async def test_whoever_still_waits_when_the_batcher_closes_is_told() -> None:
    device = Device()
    device.open.clear()
    async with Batcher(device, max_batch_size=1) as batcher:
        running = submit(batcher, 0)
        await device.is_entered()
        waiting = submit(batcher, 1)
        await settle()
    for task in (running, waiting):
        with pytest.raises(NotReady):
            await task
    device.open.set()


async def test_an_item_leaves_the_queue_when_its_batch_starts() -> None:
    started: list[int] = []
    async with Batcher(Device(), max_batch_size=1) as batcher:
        await submit(batcher, 7, release=lambda: started.append(7))
    assert started == [7]


@settings(max_examples=60, deadline=None)
@given(
    items=st.lists(st.tuples(st.sampled_from([1, 2, 3, POISON]), st.booleans()), min_size=1, max_size=40),
    slots=st.integers(1, 3),
    size=st.integers(1, 5),
)
def test_whatever_leaves_or_fails_every_other_item_is_answered(
    items: list[tuple[int, bool]], slots: int, size: int
) -> None:
    async def scenario() -> None:
        async with Batcher(Device(), max_batch_size=size, slots=slots) as batcher:
            tasks = [submit(batcher, item) for item, _ in items]
            await asyncio.sleep(0)
            for task, (_, leaves) in zip(tasks, items, strict=True):
                if leaves:
                    task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for result, (item, leaves) in zip(results, items, strict=True):
                if leaves:
                    assert isinstance(result, asyncio.CancelledError)
                elif item == POISON:
                    assert isinstance(result, ServiceError)
                else:
                    assert result == 2 * item
            assert len(batcher) == 0

    asyncio.run(scenario())


async def test_a_batch_that_failed_keeps_nothing_in_memory_until_garbage_is_collected() -> None:
    async def failed(batcher: Batcher[int, int], device: Device) -> "weakref.ref[Device]":
        batcher.infer = device
        await asyncio.gather(submit(batcher, POISON), submit(batcher, 1), return_exceptions=True)
        batcher.infer = Device()
        assert await submit(batcher, 1) == 2
        return weakref.ref(device)

    gc.disable()
    try:
        async with Batcher[int, int](Device(), max_batch_size=2) as batcher:
            device = await failed(batcher, Device())
            await settle()
            assert device() is None
    finally:
        gc.enable()
