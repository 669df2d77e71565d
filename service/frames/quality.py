"""Picture quality: cheap tests for frames on which a mask cannot be trusted, such as dark or blurred ones."""

import math
from enum import StrEnum

import cv2
import numpy as np

from model.transforms import Pixels

# Levels are 0 to 255. Only the lit field of the endoscope is judged, not the black border around it.
LIT = 24
LEAST_LIT_SHARE = 0.02
DARK_MEAN = 55  # of the lit field
BRIGHT = 250
BRIGHT_SHARE = 0.15  # of the lit field
BLUR_VARIANCE = 12.0  # of the Laplacian: sample frames have 170 to 300, and 3 to 9 after a Gaussian blur of 2 pixels
FROZEN_DIFFERENCE = 0.02  # mean absolute difference; camera noise alone causes more, even in front of a still scene
FROZEN_SECONDS = 0.5
EROSION = np.ones((9, 9), np.uint8)  # excludes the edge of the lit field from the test for blur


class Quality(StrEnum):
    """A problem of a picture."""

    BLACK = "black"
    TOO_DARK = "too_dark"
    SATURATED = "saturated"
    BLURRED = "blurred"
    FROZEN = "frozen"


def luma_of(pixels: Pixels) -> Pixels:
    """Return the luma, uint8 (H, W), of RGB pixels, uint8 (3, H, W)."""
    return np.asarray(cv2.cvtColor(pixels.transpose(1, 2, 0), cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def judge(luma: Pixels) -> list[Quality]:
    """Return the problems of one frame, from its luma, uint8 (H, W); ``Stillness`` finds frozen ones."""
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
    """Detects a frozen picture, as a failing cable or capture card delivers."""

    def __init__(self) -> None:
        self._last: Pixels | None = None
        self._since = 0.0  # capture time of the last change, seconds
        self._captured = -math.inf  # of the last frame, seconds

    def frozen(self, luma: Pixels, captured: float) -> bool:
        """Tell whether the picture has not changed for ``FROZEN_SECONDS``.

        Args:
            luma: uint8 (H, W), of the next frame.
            captured: its capture time, seconds; after a step back, as in a recording that is sought, nothing is known.

        """
        last, self._last = self._last, luma
        back, self._captured = captured < self._captured, captured
        if last is None or back or float(cv2.absdiff(luma, last).mean()) > FROZEN_DIFFERENCE:
            self._since = captured
        return captured - self._since >= FROZEN_SECONDS
