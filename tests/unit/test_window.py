import asyncio

import pytest

from service.streams.window import Drop, Policy, Turn, Window


async def settled() -> None:
    """Let everything that can happen now happen."""
    for _ in range(10):
        await asyncio.sleep(0)


async def asking(window: Window, deadline: float | None = None) -> "asyncio.Task[Turn | Drop]":
    task = asyncio.create_task(window.turn(deadline))
    await settled()
    return task


async def test_the_first_frame_has_its_turn_at_once() -> None:
    assert isinstance(await Window(Policy.LATEST, 4).turn(None), Turn)


async def test_under_latest_a_newer_frame_replaces_one_that_waits() -> None:
    window = Window(Policy.LATEST, 4)
    first = await window.turn(None)
    waiting = await asking(window)
    newest = await asking(window)
    assert waiting.result() is Drop.STALE
    assert not newest.done()
    assert isinstance(first, Turn)
    first.leave_device()
    assert isinstance(await newest, Turn)


async def test_under_every_frames_have_their_turns_in_order_and_none_is_replaced() -> None:
    window = Window(Policy.EVERY, 2)
    tasks = [await asking(window) for _ in range(4)]
    assert [task.done() for task in tasks] == [True, True, False, False]
    for task in tasks[:2]:
        turn = task.result()
        assert isinstance(turn, Turn)
        turn.leave_device()
        await settled()
    assert [task.done() for task in tasks] == [True, True, False, False]  # their answers are still held
    window.answer_taken()
    await settled()
    assert [task.done() for task in tasks] == [True, True, True, False]
    tasks[3].cancel()
    await asyncio.gather(tasks[3], return_exceptions=True)


async def test_answers_that_nobody_takes_stop_the_work() -> None:
    window = Window(Policy.LATEST, 2)
    for _ in range(2):
        turn = await window.turn(None)
        assert isinstance(turn, Turn)
        turn.leave_device()
    third = await asking(window)
    assert not third.done()
    window.answer_taken()
    assert isinstance(await third, Turn)


async def test_a_frame_whose_time_is_up_on_arrival_leaves_the_waiting_one_alone() -> None:
    window = Window(Policy.LATEST, 4)
    first = await window.turn(None)
    waiting = await asking(window)
    assert await window.turn(asyncio.get_running_loop().time() - 1) is Drop.DEADLINE
    assert isinstance(first, Turn)
    first.leave_device()
    assert isinstance(await waiting, Turn)


async def test_a_deadline_passes_by_its_own_timer() -> None:
    window = Window(Policy.LATEST, 4)
    first = await window.turn(None)
    assert await window.turn(asyncio.get_running_loop().time() + 0.01) is Drop.DEADLINE
    assert isinstance(first, Turn)
    first.leave_device()
    assert isinstance(await window.turn(None), Turn)  # who timed out is not given the turn


async def test_a_cancelled_frame_takes_no_turn_from_those_behind_it() -> None:
    window = Window(Policy.EVERY, 1)
    first = await window.turn(None)
    leaving, staying = await asking(window), await asking(window)
    assert isinstance(first, Turn)
    leaving.cancel()
    first.leave_device()  # in the same moment, before the cancelled task has run
    window.answer_taken()
    assert isinstance(await staying, Turn)
    with pytest.raises(asyncio.CancelledError):
        await leaving


async def test_a_frame_waits_until_the_one_before_is_off_the_device_even_if_that_one_failed() -> None:
    window = Window(Policy.EVERY, 2)
    first, second = await window.turn(None), await window.turn(None)
    assert isinstance(first, Turn)
    assert isinstance(second, Turn)
    ordered = asyncio.create_task(second.in_order())
    await settled()
    assert not ordered.done()
    first.leave_device()
    first.leave_device()  # a later call does nothing
    await ordered
