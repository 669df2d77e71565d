"""A mask described as shapes says the same as the mask."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco

from service.frames.shapes import draw_overlay, find_polyps, run_lengths

MASKS = arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24)).map(
    lambda mask: mask.astype(np.uint8) * 255
)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own
@settings(deadline=None)
@given(MASKS)
def test_run_lengths_are_what_the_coco_tools_read(mask: np.ndarray) -> None:
    height, width = mask.shape
    encoded = coco.frPyObjects({"size": [height, width], "counts": run_lengths(mask)}, height, width)
    assert np.array_equal(coco.decode(encoded) * 255, mask)


@settings(deadline=None)
@given(MASKS)
def test_polyps_cover_exactly_the_mask_and_come_largest_first(mask: np.ndarray) -> None:
    polyps = find_polyps(mask, np.zeros(mask.shape, np.float32))
    assert sum(polyp.area_fraction for polyp in polyps) == pytest.approx((mask > 0).mean())
    assert [p.area_fraction for p in polyps] == sorted((p.area_fraction for p in polyps), reverse=True)
    for polyp in polyps:
        x, y, width, height = polyp.bounding_box
        assert mask[y : y + height, x : x + width].any()
        assert np.ptp(polyp.polygon, axis=0).tolist() == [width, height]
        assert np.min(polyp.polygon, axis=0).tolist() == [x, y]


def drawn(polygon: list[tuple[int, int]], shape: tuple[int, ...]) -> np.ndarray:
    """Draw a polygon as the COCO tools do."""
    height, width = shape
    return coco.decode(coco.merge(coco.frPyObjects([np.ravel(polygon).tolist()], height, width)))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own
@settings(deadline=None)
@given(MASKS)
def test_the_coco_tools_draw_each_polyp_from_its_polygon(mask: np.ndarray) -> None:
    together = np.zeros_like(mask)
    for polyp in find_polyps(mask, np.zeros(mask.shape, np.float32)):
        assert len(polyp.polygon) >= 4
        together |= drawn(polyp.polygon, mask.shape)
    assert np.array_equal(together, filled(mask))


def filled(mask: np.ndarray) -> np.ndarray:
    """Fill the holes of each region: background that does not reach the rim from pixel to pixel by their sides."""
    padded = np.pad(mask == 0, 1, constant_values=True).astype(np.uint8)
    _, labels = cv2.connectedComponents(padded, connectivity=4)
    return (labels[1:-1, 1:-1] != labels[0, 0]).astype(np.uint8)


THIN = {"a pixel": (5, 5, 6, 6), "a row": (3, 5, 18, 6), "a column": (5, 3, 6, 18), "a square": (2, 2, 9, 9)}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own
@pytest.mark.parametrize("kind", THIN)
def test_a_box_has_four_corners_however_thin_it_is(kind: str) -> None:
    left, top, right, bottom = THIN[kind]
    mask = np.zeros((20, 20), np.uint8)
    mask[top:bottom, left:right] = 255
    (polyp,) = find_polyps(mask, np.zeros(mask.shape, np.float32))
    assert sorted(polyp.polygon) == sorted([(left, top), (right, top), (right, bottom), (left, bottom)])
    assert np.array_equal(drawn(polyp.polygon, mask.shape) * 255, mask)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own
def test_a_filled_polygon_gives_the_polyp_back() -> None:
    mask = np.zeros((60, 80), np.uint8)
    cv2.ellipse(mask, (40, 30), (20, 12), 30, 0, 360, 255, -1)
    (polyp,) = find_polyps(mask, np.full(mask.shape, 2.0, np.float32))
    assert np.array_equal(drawn(polyp.polygon, mask.shape) * 255, mask)
    assert polyp.centroid == pytest.approx((40, 30), abs=0.5)
    assert polyp.mean_probability == pytest.approx(0.8808, abs=1e-4)


def test_an_empty_mask_has_no_polyp_and_one_run() -> None:
    mask = np.zeros((4, 5), np.uint8)
    assert find_polyps(mask, np.zeros(mask.shape, np.float32)) == []
    assert run_lengths(mask) == [20]


def test_an_overlay_changes_the_picture_only_around_the_polyp() -> None:
    picture = np.full((100, 100, 3), 80, np.uint8)
    mask = np.zeros((100, 100), np.uint8)
    mask[40:60, 40:60] = 255
    drawn = draw_overlay(picture, mask)
    assert (drawn[50, 50] != picture[50, 50]).any()
    assert np.array_equal(drawn[:30], picture[:30])
    assert (picture == 80).all()
