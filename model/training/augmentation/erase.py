"""Whole pictures without a polyp, made by covering the polyps of annotated ones with mucosa from beside them.

Crops of polyp-free regions teach close-ups; these teach what a whole frame looks like, surround and all, when it shows
no polyp. Like crops, they are not clean frames.
"""

from typing import cast

import cv2
import numpy as np

from model.transforms import Pixels

LARGEST_POLYP = 0.2  # of the picture; larger ones leave too little to cover them with
GROWTH = 0.03  # of the long side: what is covered beyond the annotation, which rarely holds all of a polyp's shadow
SPARED = 3  # pixels along the edge of a cover that the solver leaves as they were
LEAST_GROWTH = 2 * SPARED  # pixels
DARK = 20  # mean level below which a pixel is the black surround, not mucosa
TRIES = 30


def erase(image: Pixels, mask: Pixels, rng: np.random.Generator) -> Pixels | None:
    """Return RGB uint8 (H, W, 3) with the polyps of ``mask`` (H, W) covered; None where there is nothing to do it with.

    The cover is the picture itself, mirrored and shifted, blended into where it lands.
    """
    if not mask.any() or mask.mean() > LARGEST_POLYP:
        return None
    radius = max(LEAST_GROWTH, round(GROWTH * max(mask.shape)))
    grown = cv2.dilate(mask, np.ones((2 * radius + 1, 2 * radius + 1), np.uint8))
    unusable = (grown > 0) | (image.mean(axis=2) < DARK)
    for _ in range(TRIES):
        matrix = _placement(mask.shape[1], mask.shape[0], rng)
        blocked = cv2.warpAffine(unusable.astype(np.uint8), matrix, mask.shape[::-1], borderValue=1)
        if not blocked[grown > 0].any():
            source = cv2.warpAffine(image, matrix, mask.shape[::-1])
            return _cover(image, cast(Pixels, grown), cast(Pixels, source), radius)
    return None


def _placement(width: int, height: int, rng: np.random.Generator) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Mirror at random and shift by up to the size of the picture, never by zero."""
    mirror = np.where(rng.random(2) < 0.5, -1.0, 1.0)
    shift = rng.uniform(-0.7, 0.7, 2) * (width, height) + np.where(mirror < 0, (width - 1, height - 1), 0)
    return np.array([[mirror[0], 0, shift[0]], [0, mirror[1], shift[1]]])


def _cover(image: Pixels, grown: Pixels, source: Pixels, radius: int) -> Pixels:
    """Blend by Poisson's equation: the texture of the source, the tone of what surrounds it."""
    edge = radius + 2 + SPARED  # the solver wants the cover clear of the picture's edge
    padding = (edge, edge, edge, edge)
    around, under = (cv2.copyMakeBorder(each, *padding, cv2.BORDER_REFLECT_101) for each in (source, image))
    # A polyp at the picture's edge is mirrored beyond it, which must not set the tone of what covers it.
    beyond = cv2.copyMakeBorder(grown, *padding, cv2.BORDER_REFLECT_101) > 0
    beyond[edge:-edge, edge:-edge] = False
    under[beyond] = around[beyond]
    # Nor may the solver spare the polyp at the edge itself: there the cover reaches out of the picture.
    cover = np.pad(np.pad(grown * np.uint8(255), SPARED + 1, mode="edge"), radius + 1)
    x, y, width, height = cv2.boundingRect(cover)
    centre = (x + width // 2, y + height // 2)  # the solver wants the cover where it is
    blended = cv2.seamlessClone(around, under, cover, centre, cv2.NORMAL_CLONE)
    return np.ascontiguousarray(blended[edge:-edge, edge:-edge], dtype=np.uint8)
