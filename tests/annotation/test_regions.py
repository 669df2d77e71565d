"""The polyps of an answer one by one are exactly its mask."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays

from pranet_client.annotation.regions import regions, simplified
from pranet_client.answers import Model, Polyp, Segmentation
from service.frames.shapes import find_polyps, run_lengths

MASKS = arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24))


def answer_of(mask: np.ndarray) -> Segmentation:
    pixels = mask.astype(np.uint8) * 255
    found = find_polyps(pixels, np.zeros(mask.shape, np.float32))
    return Segmentation(
        width=mask.shape[1],
        height=mask.shape[0],
        polyps=[
            Polyp(each.polygon, each.bounding_box, each.area_fraction, each.centroid, each.mean_probability)
            for each in found
        ],
        presence=None,
        quality=(),
        threshold=0.5,
        times={},
        model=Model("fake", "0" * 64, "fake", "cpu", "fp32"),
        batch_size=1,
        request_id="1",
        run_lengths=run_lengths(pixels),
    )


@settings(deadline=None)
@given(MASKS)
def test_regions_divide_the_mask_among_its_polyps(mask: np.ndarray) -> None:
    found = regions(answer_of(mask))
    together = np.zeros(mask.shape, int)
    for region in found:
        together += region.mask
        assert region.mask.mean() == pytest.approx(region.polyp.area_fraction)
    assert np.array_equal(together, mask)


def test_a_polyp_in_a_hole_of_another_is_a_region_of_its_own() -> None:
    ring = np.ones((9, 9), bool)
    ring[1:-1, 1:-1] = False
    island = np.zeros((9, 9), bool)
    island[3:6, 3:6] = True
    outer, inner = regions(answer_of(ring | island))
    assert np.array_equal(outer.mask, ring)
    assert np.array_equal(inner.mask, island)


def test_a_simplified_outline_of_a_disc_has_few_corners_and_stays_within_a_pixel() -> None:
    rows, columns = np.ogrid[:200, :200]
    (region,) = regions(answer_of((rows - 100) ** 2 + (columns - 100) ** 2 < 80**2))
    corners = simplified(region.polyp.polygon)
    assert len(corners) < len(region.polyp.polygon) / 8
    assert set(corners) <= set(region.polyp.polygon)
    assert max(_distance(point, corners) for point in region.polyp.polygon) <= 1


@pytest.mark.parametrize(
    "polygon", [[(0, 0), (0, 1), (1, 1), (1, 0)], [(3, 3), (3, 4), (9, 4), (9, 3)]], ids=["pixel", "line"]
)
def test_the_smallest_outlines_stay_as_they_are(polygon: list[tuple[int, int]]) -> None:
    assert simplified(polygon) == polygon


def _distance(point: Any, corners: Any) -> float:
    """Return how far a point is from the nearest edge of a closed outline."""
    start, end = np.array(corners, float), np.roll(np.array(corners, float), -1, axis=0)
    along = ((np.array(point) - start) * (end - start)).sum(1) / ((end - start) ** 2).sum(1)
    nearest = start + np.clip(along, 0, 1)[:, None] * (end - start)
    return float(np.linalg.norm(nearest - np.array(point), axis=1).min())
