"""Polyp-free rectangles of annotated pictures: the only frames without a polyp that annotated data can give.

A crop is not a clean frame: it shows mucosa from nearer, and often the neighbourhood of a polyp.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from model.transforms import Pixels

TRIES = 40
LEAST_AREA = 0.2  # of the picture; much tighter ones would be told from polyps by their blur alone
MARGIN = 0.01  # of the picture's long side, kept clear around the mask: annotated edges are rarely exact


@dataclass(frozen=True)
class Box:
    """A rectangle of a picture, pixels."""

    x: int
    y: int
    width: int
    height: int

    def of(self, pixels: Pixels) -> Pixels:
        """Cut the rectangle out of (H, W) or (H, W, C)."""
        return pixels[self.y : self.y + self.height, self.x : self.x + self.width]


def draw(mask: Pixels, rng: np.random.Generator, least_area: float = LEAST_AREA, tries: int = TRIES) -> Box | None:
    """Draw a random rectangle without a polyp, at least ``least_area`` of the picture; None if none is found."""
    height, width = mask.shape
    table = _integral(mask)
    for _ in range(tries):
        area = rng.uniform(least_area, 1.0)
        ratio = np.exp(rng.uniform(-0.5, 0.5))
        box_width, box_height = round(width * np.sqrt(area * ratio)), round(height * np.sqrt(area / ratio))
        if box_width > width or box_height > height:
            continue
        x, y = rng.integers(width - box_width + 1), rng.integers(height - box_height + 1)
        box = Box(int(x), int(y), box_width, box_height)
        if _count(table, box) == 0:
            return box
    return None


def _integral(mask: Pixels) -> npt.NDArray[np.int32]:
    radius = max(1, round(MARGIN * max(mask.shape)))
    grown = cv2.dilate(mask, np.ones((2 * radius + 1, 2 * radius + 1), np.uint8))
    return np.asarray(cv2.integral(grown), dtype=np.int32)


def _count(table: npt.NDArray[np.int32], box: Box) -> int:
    right, bottom = box.x + box.width, box.y + box.height
    return int(table[bottom, right] - table[box.y, right] - table[bottom, box.x] + table[box.y, box.x])
