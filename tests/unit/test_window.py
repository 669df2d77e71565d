import asyncio

import pytest

from service.streams.frame import Drop, StreamFrame
from service.streams.window import Policy, Window


async def settled() -> None:
    """Let everything that can happen now happen."""
    for _ in range(10):
        await asyncio.sleep(0)


class Turn:
    """One frame that asks for its turn."""

    def __init__(self, window: Window, expires: float | None = None) -> None:
        self.frame = StreamFrame(frame_id=0, source=b"", expires=expires)
        self.window = window
        self.waiting = asyncio.ensure_future(window.turn(self.frame))

    def done(self) -> bool:
        return self.waiting.done()

    async def granted(self) -> bool:
        return await self.waiting is None

    def leave_device(self) -> None:
        self.window.left_device(self.frame)


async def asking(window: Window, expires: float | None = None) -> Turn:
    turn = Turn(window, expires)
    await settled()
    return turn


async def having(window: Window) -> Turn:
    turn = await asking(window)
    assert await turn.granted()
    return turn


async def test_the_first_frame_has_its_turn_at_once() -> None:
    assert await Turn(Window(Policy.LATEST, 4)).granted()


async def test_under_latest_a_newer_frame_replaces_one_that_waits() -> None:
    window = Window(Policy.LATEST, 4)
    first = await having(window)
    waiting = await asking(window)
    newest = await asking(window)
    assert await waiting.waiting is Drop.STALE
    assert not newest.done()
    first.leave_device()
    assert await newest.granted()


async def test_under_every_frames_have_their_turns_in_order_and_none_is_replaced() -> None:
    window = Window(Policy.EVERY, 2)
    turns = [await asking(window) for _ in range(4)]
    assert [turn.done() for turn in turns] == [True, True, False, False]
    for turn in turns[:2]:
        assert await turn.granted()
        turn.leave_device()
        await settled()
    assert [turn.done() for turn in turns] == [True, True, False, False]  # their answers are still held
    window.answer_taken()
    await settled()
    assert [turn.done() for turn in turns] == [True, True, True, False]
    turns[3].waiting.cancel()
    await asyncio.gather(turns[3].waiting, return_exceptions=True)


async def test_answers_that_nobody_takes_stop_the_work() -> None:
    window = Window(Policy.LATEST, 2)
    for _ in range(2):
        (await having(window)).leave_device()
    third = await asking(window)
    assert not third.done()
    window.answer_taken()
    assert await third.granted()


async def test_a_frame_whose_time_is_up_on_arrival_leaves_the_waiting_one_alone() -> None:
    window = Window(Policy.LATEST, 4)
    first = await having(window)
    waiting = await asking(window)
    assert await Turn(window, asyncio.get_running_loop().time() - 1).waiting is Drop.DEADLINE
    first.leave_device()
    assert await waiting.granted()


async def test_a_deadline_passes_by_its_own_timer() -> None:
    window = Window(Policy.LATEST, 4)
    first = await having(window)
    assert await Turn(window, asyncio.get_running_loop().time() + 0.01).waiting is Drop.DEADLINE
    first.leave_device()
    assert await Turn(window).granted()  # who timed out is not given the turn


async def test_a_cancelled_frame_takes_no_turn_from_those_behind_it() -> None:
    window = Window(Policy.EVERY, 1)
    first = await having(window)
    leaving, staying = await asking(window), await asking(window)
    leaving.waiting.cancel()
    first.leave_device()  # in the same moment, before the cancelled task has run
    window.answer_taken()
    assert await staying.granted()
    with pytest.raises(asyncio.CancelledError):
        await leaving.waiting


async def test_a_frame_waits_until_the_one_before_is_off_the_device_even_if_that_one_failed() -> None:
    window = Window(Policy.EVERY, 2)
    first, second = await having(window), await having(window)
    ordered = asyncio.create_task(window.in_order(second.frame))
    await settled()
    assert not ordered.done()
    first.leave_device()
    first.leave_device()  # a later call does nothing
    await ordered


async def test_a_frame_that_fails_lets_no_later_one_overtake_those_before_it() -> None:
    window = Window(Policy.EVERY, 3)
    first, failing, last = await having(window), await having(window), await having(window)
    failing.leave_device()
    ordered = asyncio.create_task(window.in_order(last.frame))
    await settled()
    assert not ordered.done()
    first.leave_device()
    await ordered
