"""Masks as shapes: polygon, box and probability of each connected region; COCO run lengths; an overlay."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from model.transforms import Floats, Pixels, sigmoid

OUTLINE_COLOUR = (64, 255, 96)  # RGB; green does not occur in mucosa


@dataclass(frozen=True, slots=True)
class Polyp:
    """One connected region of a mask, in pixels of the frame."""

    polygon: list[tuple[int, int]]  # outer outline along the edges of pixels as (x, y), as COCO has it
    bounding_box: tuple[int, int, int, int]  # x, y, width, height
    area_fraction: float  # of the frame, 0..1
    centroid: tuple[float, float]  # x, y
    mean_probability: float  # over its pixels, 0..1


def find_polyps(mask: Pixels, logits: Floats) -> list[Polyp]:
    """Describe the 8-connected regions of a mask (H, W), largest first; ``logits`` (H, W) belong to the same pixels."""
    count, labels, stats, centroids = cv2.connectedComponentsWithStats(mask, connectivity=8)
    polyps = [_describe(labels, logits, label, stats[label], centroids[label]) for label in range(1, count)]
    return sorted(polyps, key=lambda polyp: -polyp.area_fraction)


def _describe(
    labels: np.ndarray,
    logits: Floats,
    label: int,
    stats: np.ndarray,
    centroid: np.ndarray,
) -> Polyp:
    x, y, width, height, area = (int(value) for value in stats)
    inside = labels[y : y + height, x : x + width] == label
    probability = sigmoid(logits[y : y + height, x : x + width][inside])
    return Polyp(
        polygon=[(x + px, y + py) for px, py in _outline(inside)],
        bounding_box=(x, y, width, height),
        area_fraction=area / labels.size,
        centroid=(float(centroid[0]), float(centroid[1])),
        mean_probability=float(probability.mean()),
    )


def count(mask: Pixels) -> int:
    """Return the number of 8-connected regions of a mask (H, W)."""
    labels: int = cv2.connectedComponents(mask, connectivity=8)[0]
    return labels - 1


def _outline(inside: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the outer outline of a connected region (H, W) as corners of pixels.

    OpenCV's outline runs through the centres of pixels: drawn again, it lacks half a pixel all around, and a region one
    pixel wide has no area. In a picture of twice the size each centre lies beside one corner of a pixel, which it is
    moved to. Pixel (x, y) covers x to x + 1 and y to y + 1, as in the annotations of COCO.
    """
    doubled = np.repeat(np.repeat(inside.astype(np.uint8), 2, axis=0), 2, axis=1)
    outlines, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    corners = (outlines[0][:, 0, :] + 1) // 2
    corners = corners[(corners != np.roll(corners, 1, axis=0)).any(axis=1)]
    before, behind = corners - np.roll(corners, 1, axis=0), np.roll(corners, -1, axis=0) - corners
    turns = before[:, 0] * behind[:, 1] != before[:, 1] * behind[:, 0]
    return [(int(px), int(py)) for px, py in corners[turns]]


def run_lengths(mask: Pixels) -> list[int]:
    """Return the counts of a mask (H, W) in COCO's uncompressed RLE: column by column, zeros first."""
    flat = (mask != 0).ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    edges = np.concatenate(([0], changes, [flat.size]))
    counts: list[int] = np.diff(edges).tolist()
    return [0, *counts] if flat[0] else counts


def from_run_lengths(counts: Sequence[int], width: int, height: int) -> Pixels:
    """Return the mask of ``run_lengths``, uint8 (H, W) of 0 and 255."""
    values = np.where(np.arange(len(counts)) % 2, np.uint8(255), np.uint8(0))
    return np.ascontiguousarray(np.repeat(values, counts).reshape(width, height).T)


def draw_overlay(picture: Pixels, mask: Pixels) -> Pixels:
    """Tint the polyps of an RGB picture, uint8 (H, W, 3), and draw their outlines; returns a new picture."""
    drawn = picture.copy()
    inside = mask != 0
    drawn[inside] = (0.75 * drawn[inside] + 0.25 * np.array(OUTLINE_COLOUR)).astype(np.uint8)
    outlines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    thickness = max(1, round(min(mask.shape) / 250))
    cv2.drawContours(drawn, outlines, -1, OUTLINE_COLOUR, thickness, cv2.LINE_AA)
    return drawn
