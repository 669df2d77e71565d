"""Masks of polyps as data sets store them: which levels are polyp.

1. A palette of colours: index 0 has to be black and is background, any other index is polyp (Pascal VOC), but for
   VOC's 255, which means uncertain and is refused. A palette of greys is read as grey.
2. Colours: the level of a pixel is its brightest channel, so red (255, 0, 0) or VOC's (128, 0, 0) on black are polyp.
3. Two levels, the lower of them 0: the other is polyp, be it 1, 128, 255 or 65535.
4. One level: 0 is no polyp; white, or above three quarters of it, is all polyp.
5. More levels, as JPEG and resizing make them around two: polyp is above the middle between the least and the greatest.
   The least must be in the lowest quarter of the file's range, the greatest at least an eighth of it and four times the
   least, and levels between must lie on edges only. Where they are few, they are classes rather than edges, and no two
   may fill an area on the same side of the middle.

Anything else could mean several things, such as classes 1, 2 and 3 or uncertain regions. It is refused with its levels.
Polyp is white: a mask stored the other way round looks like one of a large polyp, unless a TIFF says so (MinIsWhite).
"""

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from model.cores import usable_cores
from model.pictures.errors import PictureError
from model.pictures.reading import read_samples
from model.pictures.samples import Levels, Samples
from model.transforms import Pixels

EDGE = 9  # pixels: a square of levels between background and polyp that is no edge
BLACK = 32  # brightest channel of a palette's background, of 255
FEW = 8  # levels: but for JPEG of the best quality, compression and resizing make more around a polyp
NOISE = 3  # levels by which JPEG of the best quality strays from what it was given
SHOWN = 8  # levels in an error


VOID = 255  # index of Pascal VOC's uncertain pixels


class Mask(NamedTuple):
    """What is polyp, bool (H, W), and what the file's levels are, for people."""

    polyp: npt.NDArray[np.bool_]
    levels: str


def read_mask(path: Path) -> Pixels:
    """Read a mask of any format that pictures are read in, as uint8 (H, W) of 0 and 1.

    Raises:
        PictureError: it cannot be read, or its levels could mean several things; the message names the file.

    """
    return _read(path).polyp.astype(np.uint8)


def levels_of(paths: Iterable[Path]) -> dict[str, int]:
    """Count masks by the levels they have, in words, most frequent first.

    Raises:
        PictureError: see ``read_mask``.

    """
    with ThreadPoolExecutor(usable_cores()) as workers:
        return dict(Counter(workers.map(_levels, paths)).most_common())


def told(counts: dict[str, int]) -> str:
    """Return the counts of ``levels_of`` as one line."""
    return "masks: " + "; ".join(f"{count} with {levels}" for levels, count in counts.items())


def _levels(path: Path) -> str:
    mask = _read(path)
    return mask.levels if mask.polyp.any() else f"{mask.levels} (no polyp)"


def _read(path: Path) -> Mask:
    try:
        return polyp(read_samples(path))
    except AmbiguousMask as error:
        raise PictureError(f"{path}: {error.reason}", "store polyps as 255 on 0, or leave the file out") from error


class AmbiguousMask(PictureError):
    """The levels of a mask do not say what is polyp."""


def polyp(samples: Samples) -> Mask:
    """Tell what is polyp by the rules above.

    Raises:
        AmbiguousMask: the rules do not decide.

    """
    if samples.palette is not None:
        indices = _distinct(samples.levels)
        used = samples.palette[indices]
        if (used != used[:, :1]).any():
            return _by_index(samples.levels, indices, used)
        return _by_level(samples.palette[samples.levels][..., 0], 255)
    levels = samples.levels
    return _by_level(levels.max(axis=2) if levels.ndim == 3 else levels, samples.white)


def _by_index(levels: Levels, indices: list[int], used: Pixels) -> Mask:
    dark = used.max(axis=1) < BLACK
    if (dark != (np.array(indices) == 0)).any() or (VOID in indices and len(indices) > 2):
        raise AmbiguousMask(
            f"its palette indices {_shown(indices)} do not say what is polyp: only 0 should be black, and 255 unused",
            "",
        )
    return Mask(levels > 0, f"palette indices {_shown(indices)}")


def _by_level(levels: Levels, white: int) -> Mask:
    found = _distinct(levels)
    least, most = found[0], found[-1]
    if most == 0 or (len(found) == 2 and least == 0):
        return Mask(levels > 0, f"levels {_shown(found)}")
    if 4 * least > 3 * white or (least == white):
        return Mask(np.ones(levels.shape, bool), f"levels {_shown(found)}")
    if 4 * least > min(white, most) or 8 * most < white or _has_third(levels, found):
        raise AmbiguousMask(f"its levels {_shown(found)} do not say what is polyp", "")
    return Mask(levels > (least + most) / 2, f"levels around {least} and {most}")


def _has_third(levels: Levels, found: list[int]) -> bool:
    """Whether levels between the least and the greatest fill more than edges."""
    least, most = found[0], found[-1]
    if len(found) > FEW:
        quarter = (most - least) / 4
        return _fill((levels > least + quarter) & (levels < most - quarter))
    areas = np.array([level for level in found if _fill(levels == level)])
    above = int((areas > (least + most) / 2).sum())
    between = (areas > least + NOISE) & (areas < most - NOISE)
    return above > 1 or len(areas) - above > 1 or bool(between.any())


def _fill(pixels: npt.NDArray[np.bool_]) -> bool:
    """Whether pixels, bool (H, W), fill a square larger than an edge."""
    return bool(cv2.erode(pixels.astype(np.uint8), np.ones((EDGE, EDGE), np.uint8), borderValue=0).any())


def _distinct(levels: Levels) -> list[int]:
    """Return the levels that occur, ascending."""
    found: list[int] = np.flatnonzero(np.bincount(levels.ravel())).tolist()
    return found


def _shown(found: list[int]) -> str:
    shown = ", ".join(map(str, found[:SHOWN]))
    return f"{shown} and {len(found) - SHOWN} more" if len(found) > SHOWN else shown
