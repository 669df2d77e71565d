from itertools import pairwise

import pytest

from service.streams.capture_clock import JUMP_SECONDS, MEMORY_SECONDS, STAYS_SECONDS, ClockMapping

FRAME = 1 / 30  # seconds
HOUR = 3600.0


def ages(shift: list[float], delays: list[float], fps: float = 30) -> list[float]:
    """Return the age at reception of frames whose sender's clock is off by ``shift``, each delayed by the network."""
    clock = ClockMapping()
    result = []
    for number, (off, delay) in enumerate(zip(shift, delays, strict=True)):
        captured = 100 + number / fps
        received = captured + delay
        result.append(received - clock.captured(captured + off, received))
    return result


def test_the_constant_part_of_the_networks_delay_is_no_age() -> None:
    assert ages([0.0] * 5, [0.25] * 5) == pytest.approx([0] * 5)


def test_a_frame_held_up_by_the_network_is_older_by_that_time() -> None:
    assert ages([0.0] * 4, [0.02, 0.02, 0.07, 0.02]) == pytest.approx([0, 0, 0.05, 0])


@pytest.mark.parametrize("shift", [HOUR, -HOUR])
def test_a_clock_that_is_an_hour_off_gives_the_same_ages(shift: float) -> None:
    delays = [0.02, 0.05, 0.03, 0.02, 0.12]
    assert ages([shift] * 5, delays) == pytest.approx(ages([0.0] * 5, delays), abs=1e-6)


@pytest.mark.parametrize("step", [10.0, -10.0, -2.0])
def test_a_clock_that_steps_in_mid_stream_gives_the_same_ages(step: float) -> None:
    delays = [0.02] * 10 + [0.02, 0.05, 0.02, 0.09, 0.02]
    stepped = ages([0.0] * 10 + [step] * 5, delays)
    assert stepped == pytest.approx(ages([0.0] * 15, delays), abs=1e-6)


@pytest.mark.parametrize("fps", [0.1, 10])
@pytest.mark.parametrize("jitter", [0.0, 0.04])
def test_a_clock_that_stood_still_is_taken_for_a_jump_when_its_frames_stay_late(fps: float, jitter: float) -> None:
    late = JUMP_SECONDS + 1
    delays = [0.02] * 3 + [0.02 + late + jitter * (number % 3 == 0) for number in range(50)]
    until = 3 + max(1, int(STAYS_SECONDS * fps))
    found = ages([0.0] * 53, delays, fps)
    assert found[3:until] == pytest.approx([late] * (until - 3), abs=0.05)
    assert found[until + 1 :] == pytest.approx([0] * (52 - until), abs=0.05)


@pytest.mark.parametrize(
    "late",
    [[6.0] * 3, [7 - number / 10 for number in range(70)], [20 - number / 20 for number in range(400)]],
    ids=["a few", "all at once", "by and by"],
)
def test_frames_that_a_stall_of_the_network_held_up_are_older_by_that_time(late: list[float]) -> None:
    delays = [0.02 + more for more in (0, 0, 0, *late, 0, 0, 0)]
    assert ages([0.0] * len(delays), delays, fps=10) == pytest.approx([0, 0, 0, *late, 0, 0, 0])


def test_a_clock_that_stands_still_twice_is_followed() -> None:
    delays = [0.02] * 3 + [6.02] * 3 + [12.02] * 50
    assert ages([0.0] * 56, delays, fps=10)[40:] == pytest.approx([0] * 16)


def test_a_long_delay_of_the_network_is_no_jump() -> None:
    assert ages([0.0] * 3, [0.02, JUMP_SECONDS - 1, 0.02])[1] == pytest.approx(JUMP_SECONDS - 1.02)


@pytest.mark.parametrize("drained", [0.01, 0.3, 0.97])
def test_frames_held_up_keep_their_age_however_slowly_the_network_drains(drained: float) -> None:
    """It then takes so many times the interval of the frames for each of them."""
    delays = [0.0] * 30
    while len(delays) < 30 * 20:
        delays.append(max(0.0, delays[-1] - (1 - drained) / 30) if any(delays) else 6.0)
    assert ages([0.0] * len(delays), delays) == pytest.approx(delays)


def test_a_clock_that_runs_slow_is_followed_for_hours() -> None:
    clock = ClockMapping()
    drift = 50e-6  # seconds a second, a poor quartz
    worst = 0.0
    for second in range(2 * int(HOUR)):
        captured = float(second)
        worst = max(worst, captured - clock.captured(captured * (1 - drift), captured))
    assert worst < 2 * (MEMORY_SECONDS + 1) * drift  # a frame a second, so each period lasts 61


def test_mapped_times_keep_the_order_of_the_frames() -> None:
    clock = ClockMapping()
    mapped = [clock.captured(n * FRAME, n * FRAME + delay) for n, delay in enumerate((0.3, 0.28, 0.1, 0.1, 0.2))]
    assert all(earlier < later for earlier, later in pairwise(mapped[2:]))


def test_an_hour_without_frames_leaves_no_old_offset_behind() -> None:
    clock, drift = ClockMapping(), 50e-6
    for captured in (0.0, 1.0, HOUR, HOUR + 1):
        age = captured - clock.captured(captured * (1 - drift), captured)
        assert age < 2 * MEMORY_SECONDS * drift
