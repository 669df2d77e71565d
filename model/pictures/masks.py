"""Masks of polyps as data sets store them: which levels are polyp.

1. A palette of colours: index 0 has to be black and is background, any other index is polyp (Pascal VOC). A palette of
   greys is read as grey.
2. Colours: the level of a pixel is its brightest channel, so red (255, 0, 0) or VOC's (128, 0, 0) on black are polyp.
3. Two levels, the lower of them 0: the other is polyp, be it 1, 128, 255 or 65535.
4. One level: 0 is no polyp; white, or above three quarters of it, is all polyp.
5. More levels, as JPEG and resizing make them around two: polyp is above the middle between the least and the greatest.
   The least must be in the lowest quarter of the file's range, the greatest at least an eighth of it and four times the
   least, and levels between must lie on edges only.

Anything else could mean several things, such as classes 1, 2 and 3 or uncertain regions. It is refused with its levels.
"""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from model.pictures.errors import PictureError
from model.pictures.reading import read_samples
from model.pictures.samples import Levels, Samples
from model.transforms import Pixels

EDGE = 9  # pixels: a square of levels between background and polyp that is no edge
BLACK = 32  # brightest channel of a palette's background, of 255
SHOWN = 8  # levels in an error


def read_mask(path: Path) -> Pixels:
    """Read a mask of any format that pictures are read in, as uint8 (H, W) of 0 and 1.

    Raises:
        PictureError: it cannot be read, or its levels could mean several things; the message names the file.

    """
    try:
        return polyp(read_samples(path)).astype(np.uint8)
    except AmbiguousMask as error:
        advice = "store polyps as 255 on 0, or leave the file out by --exclude"
        raise PictureError(f"{path}: {error.reason}", advice) from error


class AmbiguousMask(PictureError):
    """The levels of a mask do not say what is polyp."""


def polyp(samples: Samples) -> npt.NDArray[np.bool_]:
    """Return what is polyp (H, W) by the rules above.

    Raises:
        AmbiguousMask: the rules do not decide.

    """
    if samples.palette is not None:
        indices = np.unique(samples.levels)
        used = samples.palette[indices]
        if (used != used[:, :1]).any():
            return _by_index(samples.levels, indices, used)
        return _by_level(samples.palette[samples.levels][..., 0], 255)
    levels = samples.levels
    return _by_level(levels.max(axis=2) if levels.ndim == 3 else levels, samples.white)


def _by_index(levels: Levels, indices: Levels, used: Pixels) -> npt.NDArray[np.bool_]:
    dark = used.max(axis=1) < BLACK
    if (dark != (indices == 0)).any():
        raise AmbiguousMask(
            f"its palette indices {_shown(indices)} do not say what is polyp: index 0 should be black, and no other", ""
        )
    return levels > 0


def _by_level(levels: Levels, white: int) -> npt.NDArray[np.bool_]:
    found = np.unique(levels)
    least, most = int(found[0]), int(found[-1])
    if most == 0 or (len(found) == 2 and least == 0):
        return levels > 0
    if 4 * least > 3 * white or (least == white):
        return np.ones(levels.shape, bool)
    if 4 * least > min(white, most) or 8 * most < white or _has_third(levels, least, most):
        raise AmbiguousMask(f"its levels {_shown(found)} do not say what is polyp", "")
    return levels > (least + most) / 2


def _has_third(levels: Levels, least: int, most: int) -> bool:
    """Whether levels in the middle half fill more than edges."""
    quarter = (most - least) / 4
    between = (levels > least + quarter) & (levels < most - quarter)
    square = np.ones((EDGE, EDGE), np.uint8)
    return bool(cv2.erode(between.astype(np.uint8), square, borderValue=0).any())


def _shown(found: Levels) -> str:
    shown = ", ".join(str(level) for level in found[:SHOWN])
    return f"{shown} and {len(found) - SHOWN} more" if len(found) > SHOWN else shown
