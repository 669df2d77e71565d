"""What an endoscope adds to a picture: specular highlights, a black surround, an inset box, burnt-in text."""

import cv2
import numpy as np
import numpy.typing as npt

from model.training.augmentation import insets
from model.training.recipe import Augmentation
from model.transforms import Pixels

LETTERS = np.array(list("ABCDEFGHIKLMNOPRSTUVXYZ0123456789:./- "))


def draw(image: Pixels, mask: Pixels, settings: Augmentation, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Add artefacts to RGB uint8 (H, W, 3) at random; what a surround or a box hides leaves the mask."""
    image = np.ascontiguousarray(image)
    if rng.random() < settings.highlights:
        image = highlights(image, rng)
    if rng.random() < settings.border:
        seen = surround(len(image), rng)
        image, mask = image * seen[..., None], mask * seen
    if rng.random() < settings.inset:
        image, mask = insets.paint(image, mask, rng)
    if rng.random() < settings.text:
        text(image, rng)
    return image, mask


def highlights(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Add a handful of small white ellipses with soft edges, as wet mucosa reflects the lamp."""
    side = len(image)
    glare = np.zeros(image.shape[:2], np.float32)
    centre = rng.uniform(0.1, 0.9, 2) * side
    for _ in range(rng.integers(1, 12)):
        x, y = (centre + rng.normal(0, 0.12 * side, 2)).astype(int).tolist()
        axes = np.maximum(1, rng.exponential(0.012, 2) * side).astype(int).tolist()
        cv2.ellipse(glare, (x, y), axes, rng.uniform(0, 180), 0, 360, 1.0, -1)
    glare = np.asarray(cv2.GaussianBlur(glare, (0, 0), 0.004 * side), np.float32)[..., None]
    return (image + (255 - image) * glare * rng.uniform(0.6, 1.0)).astype(np.uint8)


def surround(side: int, rng: np.random.Generator) -> Pixels:
    """Return (side, side) of 1 in the endoscope's view and 0 outside: a disc, or a frame with cut corners."""
    view = np.zeros((side, side), np.uint8)
    if rng.random() < 0.4:
        middle = (rng.uniform(0.45, 0.55, 2) * side).astype(int).tolist()
        cv2.circle(view, middle, round(side * rng.uniform(0.5, 0.62)), 1, -1)
        return view
    left, top, right, bottom = (rng.uniform(0, 0.12, 4) * side).astype(int).tolist()
    cut = round(side * rng.uniform(0, 0.2))
    far_x, far_y = side - 1 - right, side - 1 - bottom
    corners: npt.NDArray[np.int32] = np.array(
        [
            [left + cut, top], [far_x - cut, top], [far_x, top + cut], [far_x, far_y - cut],
            [far_x - cut, far_y], [left + cut, far_y], [left, far_y - cut], [left, top + cut],
        ],
        np.int32,
    )  # fmt: skip
    cv2.fillPoly(view, [corners], 1)
    return view


def text(image: Pixels, rng: np.random.Generator) -> None:
    """Write a few short lines of letters and digits into the picture, in place."""
    side = len(image)
    x, y = int(rng.uniform(0, 0.7) * side), int(rng.uniform(0.05, 0.8) * side)
    scale = rng.uniform(0.25, 0.5) * side / 352
    for line in range(rng.integers(1, 5)):
        words = "".join(rng.choice(LETTERS, rng.integers(3, 14)))
        place = (x, y + round(line * 30 * scale))
        cv2.putText(image, words, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (235, 235, 235), 1, cv2.LINE_AA)
