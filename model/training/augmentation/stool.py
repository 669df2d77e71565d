"""Lumps of stool, found by their colour in frames without a polyp.

Stool is yellow to brown where mucosa is red. The hue in CIELAB, atan2(b*, a*), tells both apart under the light of any
endoscope if it is compared with the rest of the frame. Overexposed mucosa looks yellow, too, so the neighbourhood of
saturated pixels is left out, and that of black ones, which would show the edge of the view or of a box.
"""

from typing import cast

import cv2
import numpy as np

from model.transforms import Pixels

SIDE = 320  # of the picture that is searched, pixels
HUE, FROM_MUCOSA = 58.0, 14.0  # degrees: the least hue of stool, and its least difference to the frame's median
CHROMA = 18  # the least b* of stool
DARK = 70  # L of 0..255; hue means little below it
BLACK, SATURATED = 12, 235  # the largest of R, G and B of what is left out with its neighbourhood
SMALLEST, LARGEST = 0.004, 0.15  # share of the picture of one lump


def lumps(image: Pixels) -> list[Pixels]:
    """Return a mask, uint8 (H, W) of 0 and 1, for each lump of stool in a picture, RGB uint8 (H, W, 3)."""
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    coloured = cv2.GaussianBlur(small, (0, 0), 2)
    lightness, a, b = (plane.astype(np.float32) for plane in cv2.split(cv2.cvtColor(coloured, cv2.COLOR_RGB2LAB)))
    hue = np.degrees(np.arctan2(b - 128, a - 128))
    lit = lightness > DARK
    if not lit.any():
        return []
    brightest = coloured.max(axis=2)
    extreme = ((brightest < BLACK) | (brightest > SATURATED)).astype(np.uint8)
    beside = cv2.dilate(extreme, np.ones((25, 25), np.uint8)).astype(bool)
    least = max(HUE, float(np.median(hue[lit])) + FROM_MUCOSA)
    yellow = (lit & (hue > least) & (b - 128 > CHROMA) & ~beside).astype(np.uint8)
    yellow = cast(Pixels, cv2.morphologyEx(yellow, cv2.MORPH_OPEN, np.ones((7, 7), np.uint8)))
    yellow = cast(Pixels, cv2.morphologyEx(yellow, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8)))
    count, labels, sizes, _ = cv2.connectedComponentsWithStats(yellow)
    shares = sizes[:, cv2.CC_STAT_AREA] / yellow.size
    found = [label for label in range(1, count) if SMALLEST < shares[label] < LARGEST]
    shape = (image.shape[1], image.shape[0])
    return [
        cast(Pixels, cv2.resize((labels == label).astype(np.uint8), shape, interpolation=cv2.INTER_NEAREST))
        for label in found
    ]
