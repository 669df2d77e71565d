import json
import math

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from model.evaluation import maps, protocols
from model.evaluation.metrics import overlap
from model.evaluation.metrics.boundary import boundary_error
from model.pictures.masks import read_mask
from tests.support.cases.masks import Levels, Mask, cases
from tests.support.pictures import DATA

RECORDED = json.loads((DATA / "metrics.json").read_text())
CASES = list(cases())
NAMES = [name for name, _, _ in CASES]

EMPTY = np.zeros((10, 10), bool)
SQUARE = EMPTY.copy()
SQUARE[2:6, 2:6] = True


def judged(levels: Levels | npt.NDArray[np.float64] | Mask, truth: Mask, protocol: protocols.Protocol = "fixed"):
    probability = levels / 255 if levels.dtype == np.uint8 else levels.astype(np.float64)
    return protocols.judge("case", probability, truth, protocol)


@pytest.mark.parametrize(("name", "levels", "truth"), CASES, ids=NAMES)
def test_published_protocol_agrees_with_an_independent_implementation(name, levels, truth):
    expected = RECORDED[name]["published"]
    judgement = judged(levels, truth, "published")
    for metric in ("s_measure", "weighted_f", "mae"):
        assert judgement.metrics[metric] == pytest.approx(expected[metric], abs=1e-6), metric
    for metric in ("jaccard", "dice", "recall", "precision", "accuracy", "f2"):
        assert judgement.metrics[metric] == pytest.approx(expected["mean"][metric], abs=1e-6), metric
    assert judgement.curve.mean() == pytest.approx(expected["mean"]["e_measure"], abs=1e-6)


@pytest.mark.parametrize(("name", "levels", "truth"), CASES, ids=NAMES)
def test_fixed_protocol_agrees_with_an_independent_implementation_where_definitions_coincide(name, levels, truth):
    expected = RECORDED[name]["fixed"]
    metrics = judged(levels, truth).metrics
    for metric in ("s_measure", "mae"):
        assert metrics[metric] == pytest.approx(expected[metric], abs=1e-6), metric
    for metric in ("accuracy", "e_measure"):
        assert metrics[metric] == pytest.approx(expected["half"][metric], abs=1e-6), metric
    if truth.any() or (levels > 127).any():  # two empty masks: ours is 1, theirs 0
        assert metrics["weighted_f"] == pytest.approx(expected["weighted_f"], abs=1e-6)
        for metric in ("jaccard", "dice", "recall", "precision", "f2"):
            assert metrics[metric] == pytest.approx(expected["half"][metric], abs=1e-6), metric


def test_overlap_of_two_squares_is_what_one_works_out_by_hand():
    moved = np.roll(SQUARE, 2, axis=1)  # 16 pixels each, 8 in common, of 100
    metrics = judged(moved, SQUARE).metrics
    assert metrics["jaccard"] == pytest.approx(8 / 24)
    assert metrics["dice"] == pytest.approx(16 / 32)
    assert metrics["recall"] == metrics["precision"] == pytest.approx(8 / 16)
    assert metrics["f2"] == pytest.approx(5 * 8 / (5 * 8 + 8 + 4 * 8))
    assert metrics["accuracy"] == pytest.approx(84 / 100)
    assert metrics["mae"] == pytest.approx(16 / 100)


def test_f2_favours_recall_over_precision():
    larger, smaller = SQUARE.copy(), SQUARE.copy()
    larger[1:7, 2:6] = True
    smaller[4:6] = False
    assert judged(larger, SQUARE).metrics["f2"] > judged(smaller, SQUARE).metrics["f2"]


@pytest.mark.parametrize("protocol", ["fixed", "published"])
@pytest.mark.parametrize("metric", ["jaccard", "dice", "recall", "precision", "f2"])
@pytest.mark.parametrize(("mask", "truth"), [(EMPTY, SQUARE), (SQUARE, EMPTY)], ids=["empty mask", "empty truth"])
def test_one_empty_mask_is_a_complete_miss(mask, truth, metric, protocol):
    value = judged(mask, truth, protocol).metrics[metric]
    # published: at threshold 0 everything counts as found, even in an empty map
    assert value < 0.01 if protocol == "published" else value == 0


def test_two_empty_masks_match_perfectly_when_judged_at_a_fixed_threshold():
    metrics = judged(EMPTY, EMPTY).metrics
    assert all(metrics[name] == 1 for name in ("jaccard", "dice", "recall", "precision", "f2", "weighted_f"))
    assert (metrics["accuracy"], metrics["mae"], metrics["s_measure"], metrics["boundary_error"]) == (1, 0, 1, 0)


def test_two_empty_masks_count_nothing_in_the_published_protocol():
    metrics = judged(EMPTY, EMPTY, "published").metrics
    assert all(metrics[name] == 0 for name in ("jaccard", "dice", "recall", "precision", "f2", "weighted_f"))


def test_probability_of_exactly_one_half_is_not_a_polyp():
    assert judged(np.full((10, 10), 0.5), EMPTY).metrics["dice"] == 1


def test_published_protocol_stretches_each_map_and_fixed_does_not():
    faint = np.where(SQUARE, 0.3, 0.1)
    assert judged(faint, SQUARE).metrics["dice"] == 0
    assert judged(faint, SQUARE, "published").metrics["dice"] > 0.99
    assert judged(faint, SQUARE, "published").metrics["mae"] == pytest.approx(0, abs=1e-12)


def test_constant_map_is_left_as_it_is_by_stretching():
    assert (protocols.stretch(np.full((4, 4), 0.3)) == 0.3).all()


def test_best_e_measure_is_that_of_one_threshold_for_the_whole_set():
    maps_and_truths = [(np.where(SQUARE, 1.0, low), SQUARE) for low in (0.2, 0.6)]
    judgements = [judged(levels, truth, "published") for levels, truth in maps_and_truths]
    curves = np.stack([judgement.curve for judgement in judgements])
    assert protocols.summarise(judgements)["e_measure"].value == pytest.approx(curves.mean(axis=0).max())


def test_counts_of_a_curve_are_those_of_each_threshold():
    levels = np.random.default_rng(0).integers(0, 256, (10, 10), np.uint8)
    curve = overlap.curve(levels, SQUARE)
    for threshold in (0, 1, 100, 255):
        one = overlap.counts(levels >= threshold, SQUARE)
        assert [part[threshold] for part in curve] == [part[0] for part in one]


def test_outlines_of_equal_masks_do_not_differ():
    assert boundary_error(SQUARE, SQUARE) == 0


def test_boundary_error_of_two_points_is_their_distance_over_the_diagonal():
    one, other = EMPTY.copy(), EMPTY.copy()
    one[1, 1] = other[4, 5] = True
    assert boundary_error(one, other) == pytest.approx(5 / math.hypot(10, 10))


def test_boundary_error_of_a_missing_mask_is_the_largest():
    assert boundary_error(EMPTY, SQUARE) == boundary_error(SQUARE, EMPTY) == 1


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff"])
def test_masks_of_any_format_and_depth_read_the_same(tmp_path, mode, suffix):
    path = tmp_path / f"mask.{suffix}"
    Image.fromarray(SQUARE * np.uint8(255)).convert(mode).save(path)
    assert (read_mask(path) == SQUARE).all()


def test_jpeg_mask_is_read_at_half_its_range(tmp_path):
    big = np.kron(SQUARE, np.ones((16, 16), bool))
    Image.fromarray(big * np.uint8(255)).save(tmp_path / "mask.jpg")
    assert (read_mask(tmp_path / "mask.jpg") == big).all()


def test_prediction_of_another_size_is_brought_to_the_size_of_the_truth(tmp_path):
    Image.fromarray(np.kron(SQUARE, np.ones((4, 4), bool)) * np.uint8(255)).save(tmp_path / "map.png")
    assert judged(maps.read_map(tmp_path / "map.png", 10, 10), SQUARE).metrics["dice"] == 1


def test_maps_of_one_eight_and_sixteen_bits_read_as_probabilities(tmp_path):
    for name, picture in {
        "1": Image.fromarray(SQUARE),
        "8": Image.fromarray(SQUARE * np.uint8(255)),
        "16": Image.fromarray(SQUARE * np.uint16(65535)),
    }.items():
        picture.save(tmp_path / f"{name}.png")
        assert (maps.read_map(tmp_path / f"{name}.png", 10, 10) == SQUARE).all()


def test_a_polyp_of_one_pixel_in_the_corner_has_finite_metrics():
    truth = EMPTY.copy()
    truth[-1, -1] = True
    for protocol in ("fixed", "published"):
        assert np.isfinite(list(judged(SQUARE, truth, protocol).metrics.values())).all()
        assert judged(truth, truth, protocol).metrics["s_measure"] > 0.99
