"""The box in a lower corner in which some makers draw the shape of the endoscope, and others' anonymisers paint black.

Nearly all public frames without a polyp carry a black one, so a network could learn that a box means no polyp. Boxes
are therefore painted in, and those that are there hidden, on pictures with and without polyps alike.
"""

from typing import NamedTuple

import cv2
import numpy as np

from model.transforms import Pixels

GREENS = ((20, 160, 60), (45, 180, 145))  # RGB of the boxes of two makers
DARK = 24  # level below which a pixel belongs to a box painted black
SIDES = (0.15, 0.5)  # of the picture: widths and heights that boxes have
STRAY = 0.02  # share of a box that is not dark: compression, letters
BRIGHT = 0.5  # share of a box's upper and right edges beyond which there is mucosa, not the surround


class Inset(NamedTuple):
    """A box flush with the lower left corner, or near it: pixels."""

    x: int
    y: int
    width: int
    height: int

    @property
    def area(self) -> tuple[slice, slice]:
        """Rows and columns that the box covers."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)


def paint(image: Pixels, mask: Pixels, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Cover a lower corner of RGB uint8 (H, W, 3) with a black or green box; what it hides leaves the mask (H, W)."""
    height, width = mask.shape
    box_width, box_height = (rng.uniform(0.15, 0.38, 2) * (width, height)).astype(int).tolist()
    x = 0 if rng.random() < 0.7 else width - box_width
    box = _drawing(box_width, box_height, rng)
    image, mask = image.copy(), mask.copy()
    image[height - box_height :, x : x + box_width] = box
    mask[height - box_height :, x : x + box_width] = 0
    return image, mask


def hide(image: Pixels, mask: Pixels, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Hide the box of a picture, if any: by what is beside it, mirrored, by a box of another kind, or by a crop."""
    box = find(image)
    if box is None:
        return image, mask
    kind = rng.random()
    if kind < 0.2:
        return _cropped(image, mask, box, rng)
    if kind < 0.5:
        image = image.copy()
        image[box.area] = _drawing(box.width, box.height, rng)
        return image, mask
    fill = from_beside if kind < 0.75 else from_above
    return fill(image, box), fill(mask, box)


def from_beside(pixels: Pixels, box: Inset) -> Pixels:
    """Fill a box of (H, W) or (H, W, C) with what lies as far from the right edge, mirrored."""
    filled = pixels.copy()
    filled[box.area] = pixels[:, ::-1][box.area]
    return filled


def from_above(pixels: Pixels, box: Inset) -> Pixels:
    """Fill a box of (H, W) or (H, W, C), which has its height above it, with what is there, upside down."""
    filled = pixels.copy()
    above = slice(max(0, box.y - box.height), max(0, box.y - box.height) + box.height)
    filled[box.area] = pixels[above, box.area[1]][::-1]
    return filled


def find(image: Pixels) -> Inset | None:
    """Find the box in the lower left of RGB uint8 (H, W, 3); None where there is none."""
    return _green(image) or _black(image)


def _green(image: Pixels) -> Inset | None:
    height, width = image.shape[:2]
    corner = image[height // 2 :, : width // 2].astype(np.int16)
    green = (corner[..., 1] > 90) & (corner[..., 1] > corner[..., 0] + 50) & (corner[..., 1] > corner[..., 2] + 15)
    if green.mean() < SIDES[0] ** 2:
        return None
    _, _, boxes, _ = cv2.connectedComponentsWithStats(green.astype(np.uint8), connectivity=4)
    x, y, box_width, box_height, area = boxes[1:][boxes[1:, cv2.CC_STAT_AREA].argmax()].tolist()
    if not _fits(box_width / width, box_height / height) or area < 0.6 * box_width * box_height:
        return None
    grown = min(3, x, height // 2 - 1)  # the edges are blurred by compression
    x, y = x - grown, y + height // 2 - grown
    return Inset(x, y, min(box_width + 2 * grown, width - x), min(box_height + 2 * grown, height - y))


def _black(image: Pixels) -> Inset | None:
    """Find the largest dark rectangle in the very corner that borders on mucosa above or to the right."""
    height, width = image.shape[:2]
    bright = (image.max(axis=2) >= DARK).astype(np.uint8)
    tall, wide = int(SIDES[1] * height) + 1, int(SIDES[1] * width) + 1
    stray = np.cumsum(np.cumsum(bright[::-1][:tall, :wide], axis=0, dtype=np.int32), axis=1)  # [h - 1, w - 1]
    area = np.arange(1, tall + 1)[:, None] * np.arange(1, wide + 1)[None]
    dark = np.where(stray <= STRAY * area, area, 0)
    box_height, box_width = (int(index) + 1 for index in np.unravel_index(int(dark.argmax()), dark.shape))
    if not dark.any() or not _fits(box_width / width, box_height / height):
        return None
    y, beyond = height - box_height, 4
    above = bright[max(0, y - beyond), :box_width].mean()
    beside = bright[y:, min(width - 1, box_width + beyond)].mean()
    return Inset(0, y, box_width, box_height) if max(above, beside) > BRIGHT else None


def _fits(width: float, height: float) -> bool:
    return all(SIDES[0] <= side < SIDES[1] for side in (width, height))


def _drawing(width: int, height: int, rng: np.random.Generator) -> Pixels:
    """Draw a box, black or green with the line of an endoscope."""
    box = np.zeros((height, width, 3), np.uint8)
    if rng.random() < 0.5:
        box[:] = GREENS[int(rng.integers(len(GREENS)))]
        points = np.array((width / 2, height / 2)) + np.cumsum(rng.normal(0, 0.1 * height, (12, 2)), axis=0)
        cv2.polylines(box, [points.astype(np.int32)], False, (230, 230, 230), max(1, width // 30))
    return box


def _cropped(image: Pixels, mask: Pixels, box: Inset, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Cut the box off by a crop from below or from the left, whichever leaves more of the polyp, else by chance."""
    right, upper = box.x + box.width, box.y
    to_right, to_top = int(mask[:, right:].sum()), int(mask[:upper].sum())
    keep_right = to_right > to_top or (to_right == to_top and rng.random() < 0.5)
    kept = (slice(None), slice(right, None)) if keep_right else (slice(None, upper), slice(None))
    return np.ascontiguousarray(image[kept]), np.ascontiguousarray(mask[kept])
