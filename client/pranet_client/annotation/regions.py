"""The polyps of an answer one by one, each with a mask of its own, or with an outline that an annotator can edit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pranet_client.answers import Polyp, Segmentation
from pranet_client.inputs import require

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Point = tuple[int, int]  # x, y


@dataclass(frozen=True)
class Region:
    """One polyp, with the part of the mask that belongs to it."""

    polyp: Polyp
    mask: "npt.NDArray[np.bool_]"  # (height, width) of the picture


def regions(answer: Segmentation) -> list[Region]:
    """Return each connected polyp of an answer with its own mask, largest first; together they are the whole mask.

    Raises:
        InvalidInput: NumPy is not installed.

    """
    left = answer.mask > 0
    masks: dict[int, npt.NDArray[np.bool_]] = {}
    # A polyp may lie in a hole of another, which the outline of the other encloses: the inner one is taken first.
    for index in sorted(range(len(answer.polyps)), key=lambda index: _box_area(answer.polyps[index])):
        masks[index] = left & _filled(answer.polyps[index].polygon, left.shape)
        left &= ~masks[index]
    return [Region(polyp, masks[index]) for index, polyp in enumerate(answer.polyps)]


def _box_area(polyp: Polyp) -> int:
    _, _, width, height = polyp.bounding_box
    return width * height


def _filled(polygon: Sequence[Point], shape: tuple[int, ...]) -> "npt.NDArray[np.bool_]":
    """Return the pixels inside a polygon whose edges run between pixels.

    A pixel is inside if an odd number of vertical edges is to the left of it.
    """
    numpy = require("numpy")
    edges = numpy.zeros((shape[0], shape[1] + 1), numpy.bool_)
    for (x, y), (next_x, next_y) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        if x == next_x:
            edges[min(y, next_y) : max(y, next_y), x] ^= True
    inside: npt.NDArray[np.bool_] = numpy.logical_xor.accumulate(edges, axis=1)[:, :-1]
    return inside


def simplified(polygon: Sequence[Point], tolerance: float = 1.0) -> list[Point]:
    """Return the corners of a closed outline without those that move it by at most ``tolerance`` pixels.

    The outlines of the service follow every pixel, and have hundreds of corners. An outline that would have fewer than
    three corners left is returned as it is.
    """
    far = max(range(len(polygon)), key=lambda index: _squared(polygon[0], polygon[index]))
    halves = [polygon[: far + 1], [*polygon[far:], polygon[0]]]
    corners = [corner for half in halves for corner in _reduced(half, tolerance)[:-1]]
    return corners if len(corners) > 2 else list(polygon)


def _reduced(line: Sequence[Point], tolerance: float) -> list[Point]:
    """Return a line with fewer corners (Ramer, Douglas and Peucker); its ends stay."""
    kept, pending = {0, len(line) - 1}, [(0, len(line) - 1)]
    while pending:
        first, last = pending.pop()
        between = range(first + 1, last)
        far = max(between, key=lambda index: _distance(line[index], line[first], line[last]), default=None)
        if far is not None and _distance(line[far], line[first], line[last]) > tolerance:
            kept.add(far)
            pending += [(first, far), (far, last)]
    return [line[index] for index in sorted(kept)]


def _squared(one: Point, other: Point) -> int:
    return (one[0] - other[0]) ** 2 + (one[1] - other[1]) ** 2


def _distance(point: Point, start: Point, end: Point) -> float:
    """Return how far a point is from a line through two others, pixels; from ``start`` if they are one."""
    length = _squared(start, end) ** 0.5
    if not length:
        return float(_squared(point, start) ** 0.5)
    across = (end[0] - start[0]) * (point[1] - start[1]) - (end[1] - start[1]) * (point[0] - start[0])
    return float(abs(across) / length)
