"""When policy may go to the device beside live video; times are given, nothing waits."""

import pytest

from service.batching.archive_policy import BATCH_SECONDS, GONE_SECONDS, STARVED_SECONDS, ArchivePolicy


def watching(fps: float, frames: int = 50, *, cost: float, busy: float = 0.0) -> tuple[ArchivePolicy, float]:
    """Return what has seen a stream, and the moment of its last frame; each was on the device for ``busy`` seconds."""
    start = 100.0
    policy = ArchivePolicy()
    policy.frame_seconds = cost
    policy.started(start)
    moment = start
    for number in range(frames):
        moment = start + number / fps
        policy.live(moment)
        policy.live_left(moment + busy)
    return policy, moment


def test_without_a_stream_bulk_goes_at_once_but_not_for_long() -> None:
    policy = ArchivePolicy()
    assert policy.size(0.0) == 1  # its cost is not known yet
    policy.frame_seconds = 0.1
    assert policy.size(1.0) == int(BATCH_SECONDS / 0.1)


def test_a_frame_that_costs_much_goes_alone() -> None:
    policy = ArchivePolicy()
    policy.frame_seconds = 2.0
    assert policy.size(0.0) == 1


def test_beside_a_stream_policy_goes_only_where_it_ends_before_the_next_frame() -> None:
    policy, last = watching(10, cost=0.02)
    assert policy.size(last + 0.01) == 4
    assert policy.size(last + 0.05) == 2
    assert policy.size(last + 0.09) == 0


def test_beside_a_stream_that_fills_the_device_policy_waits() -> None:
    policy, last = watching(10, cost=0.15)
    assert [policy.size(last + late) for late in (0.0, 0.05, 0.15, 0.5)] == [0, 0, 0, 0]
    assert policy.allowed_at(last) == last + GONE_SECONDS


def test_an_uneven_stream_gets_more_room() -> None:
    policy, last = watching(10, cost=0.02)
    for _ in range(20):
        policy.live(last + 0.05)
        policy.live(last := last + 0.2)
    assert policy.size(last) < 2


def test_a_stream_whose_frames_take_long_on_the_device_is_not_over() -> None:
    policy, last = watching(2, cost=1.5 * GONE_SECONDS)
    left = last + 1.5 * GONE_SECONDS
    policy.live_left(left)
    assert policy.size(left + 0.1) == 0
    policy.live(left + 0.1)
    assert policy.size(left + 0.1 + GONE_SECONDS / 2) == 0
    assert policy.size(left + 0.1 + 2 * GONE_SECONDS) == 1


def test_a_slow_stream_is_not_over_after_one_gap() -> None:
    policy, last = watching(0.5, frames=20, cost=1.9 * GONE_SECONDS, busy=1.9 * GONE_SECONDS)
    assert policy.size(last + 3.5) == 0
    assert policy.size(last + 6.5) == 1


def test_a_stream_that_is_over_no_longer_holds_policy_back() -> None:
    policy, last = watching(10, cost=0.15)
    assert policy.size(last + GONE_SECONDS) == 1
    policy.live(last + 2 * GONE_SECONDS)  # another begins: nothing is known of it
    assert policy.size(last + 2 * GONE_SECONDS) == 0


def test_policy_does_not_starve_for_ever() -> None:
    policy, last = watching(10, frames=round(10 * STARVED_SECONDS), cost=0.15)
    assert policy.size(last) == 0
    assert policy.size(last + 0.1) == 1
    policy.started(last + 0.1)
    policy.live(last + 0.1)
    assert policy.size(last + 0.2) == 0


def test_live_frames_now_and_then_do_not_starve_archives_behind_requests() -> None:
    policy, arrived = ArchivePolicy(), 100.0
    policy.frame_seconds = 0.05
    moments = [arrived + late for late in range(0, round(STARVED_SECONDS) + 1, round(2 * GONE_SECONDS))]
    for moment in moments:  # each of these frames begins a stream
        policy.live(moment)
    assert not policy.starved(arrived + STARVED_SECONDS - 1, arrived)
    assert policy.starved(arrived + STARVED_SECONDS, arrived)
    policy.started(arrived + STARVED_SECONDS)
    assert not policy.starved(arrived + STARVED_SECONDS + 1, arrived)


@pytest.mark.parametrize("fps", [5, 15, 30, 60])
def test_room_is_less_than_the_time_between_frames(fps: int) -> None:
    policy, last = watching(fps, cost=0.001)
    assert 0.5 / fps < policy.size(last) * 0.001 <= 1 / fps
