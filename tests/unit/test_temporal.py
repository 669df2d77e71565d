import cv2
import numpy as np
import pytest

from model.transforms import SIZE, Floats, Pixels, to_input
from service.frames.codec import decode
from service.frames.quality import FROZEN_SECONDS, Quality, judge
from service.frames.regions import Box
from service.streams.temporal import GAP_SECONDS, MARGIN, TemporalFilter
from tests.support.pictures import SAMPLES

WHOLE = Box(0, 0, SIZE, SIZE)
FRAME = 1 / 30  # seconds
NOISE = np.random.default_rng(0)


def scene(level: int = 120) -> Pixels:
    """Return a picture with a camera's noise."""
    return NOISE.integers(level - 20, level + 20, (3, SIZE, SIZE)).astype(np.uint8)


def flat(level: float) -> Floats:
    return np.full((SIZE, SIZE), level, np.float32)


def shown(memory: TemporalFilter, levels: list[float], **fixed: Pixels) -> list[float]:
    """Return what a memory makes of flat logits, a frame every 33 ms."""
    return [
        float(memory.update(fixed.get("pixels", scene()), WHOLE, flat(level), number * FRAME)[0][0, 0])
        for number, level in enumerate(levels)
    ]


def test_by_default_the_logits_are_left_alone_and_nothing_is_delayed() -> None:
    memory = TemporalFilter()
    assert shown(memory, [1, -1, 1]) == [1, -1, 1]
    assert memory.update(scene(), WHOLE, flat(0), 1.0)[1].added_delay == 0


def test_smoothing_approaches_a_step_with_its_time_constant_whatever_the_rate() -> None:
    fast, slow = TemporalFilter(smoothing=0.2), TemporalFilter(smoothing=0.2)
    for number in range(7):
        at_30_fps, _ = fast.update(scene(), WHOLE, flat(0.0 if number == 0 else 1.0), number * FRAME)
    for number in range(4):
        at_15_fps, _ = slow.update(scene(), WHOLE, flat(0.0 if number == 0 else 1.0), number * 2 * FRAME)
    assert at_30_fps[0, 0] == pytest.approx(1 - np.exp(-1), abs=1e-5)  # six frames of 33 ms are one time constant
    assert at_15_fps[0, 0] == pytest.approx(at_30_fps[0, 0], abs=1e-5)


def test_smoothing_says_the_delay_that_it_adds_from_the_first_frame_on_and_after_a_cut() -> None:
    memory, delays = TemporalFilter(smoothing=0.2), []
    for number, captured in enumerate(np.cumsum([0.0, 0.04, 0.04, 0.12, 0.0, 0.3] * 2)):
        picture = scene(120 if number < 8 else 220)
        logits, status = memory.update(picture, WHOLE, flat(captured), captured)  # the mean time of what is in it
        assert status.added_delay == pytest.approx(captured - logits[0, 0], abs=1e-6)
        delays.append(status.added_delay)
    assert [number for number, delay in enumerate(delays) if not delay] == [0, 8]


@pytest.mark.parametrize(
    ("pixels", "box", "captured"),
    [(scene(220), WHOLE, FRAME), (scene(), Box(8, 8, 300, 300), FRAME), (scene(), WHOLE, GAP_SECONDS + 0.1)],
    ids=["scene cut", "another region", "gap"],
)
def test_the_past_is_forgotten_where_it_says_nothing(pixels: Pixels, box: Box, captured: float) -> None:
    memory = TemporalFilter(smoothing=0.5, hysteresis=True)
    memory.update(scene(), WHOLE, flat(5), 0.0)
    logits, status = memory.update(pixels, box, flat(-5), captured)
    assert logits[0, 0] == -5
    assert status.added_delay == 0


def test_with_hysteresis_a_polyp_appears_late_and_stays_until_it_is_surely_gone() -> None:
    memory = TemporalFilter(hysteresis=True)
    levels = [0.5, MARGIN + 0.1, 0.1, -0.5, -MARGIN - 0.1, 0.5, MARGIN + 0.1]
    assert [level > 0 for level in shown(memory, levels)] == [False, True, True, True, False, False, True]


def test_a_polyp_that_is_held_below_the_threshold_is_no_larger_than_above_it() -> None:
    memory, slope = TemporalFilter(hysteresis=True), np.linspace(-6, 2, SIZE * SIZE, dtype=np.float32)
    logits = slope.reshape(SIZE, SIZE)
    areas = []
    for number, change in enumerate((0.0, -1.5, -2.0, -2.5)):  # the confidence is 2 at first
        shown_logits, status = memory.update(scene(), WHOLE, logits + change, number * FRAME)
        areas.append(int((shown_logits > 0).sum()))
        assert status.seen is not None
        assert (status.seen == logits + change).all()  # what the presence score is computed from
    assert areas == sorted(areas, reverse=True)
    assert areas[-1] > 0


def test_a_region_whose_borders_tremble_is_still_the_same() -> None:
    memory = TemporalFilter(smoothing=0.5)
    memory.update(scene(), WHOLE, flat(5), 0.0)
    logits, _ = memory.update(scene(), Box(2, 0, SIZE - 2, SIZE), flat(-5), FRAME)
    assert logits[0, 0] > 0


def test_a_speck_is_no_polyp_for_hysteresis() -> None:
    logits = flat(-5)
    logits[:3, :3] = 5
    shown_logits, _ = TemporalFilter(hysteresis=True).update(scene(), WHOLE, logits, 0.0)
    assert not (shown_logits > 0).any()


def test_sample_frames_have_nothing_to_be_said_about() -> None:
    for sample in SAMPLES:
        assert (
            TemporalFilter().update(to_input(decode(sample.read_bytes(), 10**6)), WHOLE, flat(0), 0.0)[1].quality == ()
        )


def luma() -> Pixels:
    pixels = to_input(decode(SAMPLES[0].read_bytes(), 10**6)).transpose(1, 2, 0)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


@pytest.mark.parametrize(
    ("spoilt", "flag"),
    [
        (np.zeros((SIZE, SIZE), np.uint8), Quality.BLACK),
        (np.where(luma() > 24, 26 + luma() // 16, 0).astype(np.uint8), Quality.TOO_DARK),
        (cv2.convertScaleAbs(luma(), alpha=4), Quality.SATURATED),
        (cv2.GaussianBlur(luma(), (0, 0), 3), Quality.BLURRED),
    ],
)
def test_what_is_wrong_with_a_picture_is_named(spoilt: Pixels, flag: Quality) -> None:
    assert flag in judge(spoilt)


def test_a_picture_that_stands_still_is_frozen_until_it_moves() -> None:
    memory, still = TemporalFilter(), scene()
    flags = [memory.update(still, WHOLE, flat(0), number * 0.1)[1].quality for number in range(8)]
    frozen = [Quality.FROZEN in each for each in flags]
    assert frozen == [number * 0.1 >= FROZEN_SECONDS for number in range(8)]
    assert Quality.FROZEN not in memory.update(scene(), WHOLE, flat(0), 0.8)[1].quality


def test_after_a_step_back_in_a_recording_stillness_is_counted_anew() -> None:
    memory, still = TemporalFilter(), scene()
    memory.update(still, WHOLE, flat(0), 9)
    flags = [memory.update(still, WHOLE, flat(0), 5 + number * 0.1)[1].quality for number in range(8)]
    assert [Quality.FROZEN in each for each in flags] == [number * 0.1 >= FROZEN_SECONDS for number in range(8)]
