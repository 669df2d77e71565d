"""Regions of interest: the whole frame, a given box, or the endoscope's field of view without the black border."""

import re
from typing import NamedTuple

import numpy as np
from PIL import Image

from service.errors import InvalidParameter

FULL = "full"
ROI_FORMS = "full, auto (without the black border), or x,y,w,h in pixels"
ROI_PATTERN = r"^(full|auto|[0-9]{1,5},[0-9]{1,5},[0-9]{1,5},[0-9]{1,5})$"
PROBE_SIDE = 256  # the black border is searched in a picture reduced to this side, pixels
BLACK_LEVEL = 24  # brightest channel in the border, of 255: JPEG noise is below, dark mucosa above
LIT_SHARE = 0.10  # of the pixels in a row or column: overlay text lights fewer, the field of view more
LEAST_SHARE = 0.10  # of the frame: a smaller field means a dark frame, not a border


class Box(NamedTuple):
    """A rectangle in pixels of the upright frame."""

    x: int
    y: int
    width: int
    height: int


def check(roi: str) -> None:
    """Check the form of a region; whether it is inside a picture is checked by ``locate``.

    Raises:
        InvalidParameter: it is none of ``full``, ``auto`` and ``x,y,w,h``.

    """
    if not re.fullmatch(ROI_PATTERN, roi):
        raise InvalidParameter(f"roi is {roi[:80]!r}, but it should be {ROI_FORMS}")


def locate(picture: Image.Image, roi: str) -> Box:
    """Return the box of an RGB picture that ``roi`` (``full``, ``auto`` or ``x,y,w,h``) names.

    Raises:
        InvalidParameter: ``roi`` is malformed, or reaches outside the picture.

    """
    frame = Box(0, 0, picture.width, picture.height)
    if roi == FULL:
        return frame
    if roi == "auto":
        return _lit_field(picture)
    check(roi)
    box = Box(*map(int, roi.split(",")))
    if min(box.width, box.height) < 1:
        raise InvalidParameter(f"roi {roi} is empty; send x,y,w,h with a width and height of at least 1 pixel")
    if box.x + box.width > frame.width or box.y + box.height > frame.height:
        raise InvalidParameter(
            f"roi {roi} is not inside the picture of {frame.width}x{frame.height} pixels; send a box inside it, or auto"
        )
    return box


def crop(picture: Image.Image, box: Box) -> Image.Image:
    """Cut a box out of a picture; a box of the whole picture returns the picture itself."""
    if box == Box(0, 0, picture.width, picture.height):
        return picture
    return picture.crop((box.x, box.y, box.x + box.width, box.y + box.height))


def _lit_field(picture: Image.Image) -> Box:
    """Find the bounding box of the lit rows and columns; the whole frame if it is not plausible."""
    frame = Box(0, 0, picture.width, picture.height)
    probe = picture.copy()
    probe.thumbnail((PROBE_SIDE, PROBE_SIDE), Image.Resampling.BOX)
    lit = np.asarray(probe).max(axis=2) > BLACK_LEVEL  # (h, w)
    rows = np.flatnonzero(lit.mean(axis=1) > LIT_SHARE)
    columns = np.flatnonzero(lit.mean(axis=0) > LIT_SHARE)
    if not rows.size or not columns.size:
        return frame
    left, right = _scaled(columns, frame.width, probe.width)
    top, bottom = _scaled(rows, frame.height, probe.height)
    box = Box(left, top, right - left, bottom - top)
    return box if box.width * box.height >= LEAST_SHARE * frame.width * frame.height else frame


def _scaled(lit: np.ndarray[tuple[int], np.dtype[np.int64]], full: int, probe: int) -> tuple[int, int]:
    """Map the first and last lit pixel of the probe to pixels of the frame, rounding outwards."""
    first, last = int(lit[0]), int(lit[-1]) + 1
    return first * full // probe, -(-last * full // probe)
