"""What a screen should say about the picture itself: cheap signs that a frame cannot be judged."""

from enum import StrEnum

import cv2
import numpy as np

from model.transforms import Pixels

# Levels are of 255. The endoscope's field is what is lit; the black surround around it says nothing about the picture.
LIT = 24
LEAST_LIT_SHARE = 0.02
DARK_MEAN = 55  # of the lit field
BRIGHT = 250
BRIGHT_SHARE = 0.15  # of the lit field
BLUR_VARIANCE = 12.0  # of the Laplacian: sample frames have 170 to 300, and 3 to 9 behind a Gaussian of 2 pixels
FROZEN_DIFFERENCE = 0.02  # mean of absolute differences: a camera's own noise is more, even before a still scene
FROZEN_SECONDS = 0.5
EROSION = np.ones((9, 9), np.uint8)  # keeps the edge of the field out of the judgement of blur


class Quality(StrEnum):
    """One thing that is wrong with a picture."""

    BLACK = "black"
    TOO_DARK = "too_dark"
    SATURATED = "saturated"
    BLURRED = "blurred"
    FROZEN = "frozen"


def judge(luma: Pixels) -> list[Quality]:
    """Return what is wrong with the luma (H, W) of one frame."""
    lit = luma > LIT
    if lit.mean() < LEAST_LIT_SHARE:
        return [Quality.BLACK]
    field = luma[lit]
    flags = []
    if field.mean() < DARK_MEAN:
        flags.append(Quality.TOO_DARK)
    if (field >= BRIGHT).mean() > BRIGHT_SHARE:
        flags.append(Quality.SATURATED)
    inner = cv2.erode(lit.astype(np.uint8), EROSION) > 0
    if inner.any() and cv2.Laplacian(luma, cv2.CV_32F)[inner].var() < BLUR_VARIANCE:
        flags.append(Quality.BLURRED)
    return flags


class Stillness:
    """Notices a picture that does not move at all, as when a cable or a capture card fails."""

    def __init__(self) -> None:
        self._last: Pixels | None = None
        self._since = 0.0  # when it last moved, seconds

    def frozen(self, luma: Pixels, captured: float) -> bool:
        """Tell whether the picture has stood still for long; ``captured`` in seconds."""
        last, self._last = self._last, luma
        if last is None or float(cv2.absdiff(luma, last).mean()) > FROZEN_DIFFERENCE:
            self._since = captured
        return captured - self._since >= FROZEN_SECONDS
