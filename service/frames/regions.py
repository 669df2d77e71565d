"""Regions of interest: the whole frame, a given box, or the lit field that the endoscope draws in a black surround."""

import re
from typing import NamedTuple

import numpy as np
from PIL import Image

from service.errors import InvalidParameter

FULL = "full"
ROI_FORMS = "full, auto (without the black surround), or x,y,w,h in pixels"
ROI_PATTERN = r"^(full|auto|[0-9]{1,5},[0-9]{1,5},[0-9]{1,5},[0-9]{1,5})$"
PROBE_SIDE = 256  # the black surround is looked for on a picture reduced to this side, pixels
BLACK_LEVEL = 24  # brightest channel of the surround, of 255: JPEG noise stays below, dark mucosa above
LIT_SHARE = 0.10  # of a row's or column's pixels: overlay text lights less, the optical field more
LEAST_SHARE = 0.10  # of the frame: a smaller field is a dark frame, not a surround


class Box(NamedTuple):
    """A rectangle in pixels of the frame, as a person sees it."""

    x: int
    y: int
    width: int
    height: int


def check(roi: str) -> None:
    """Refuse what names no region of any picture.

    Raises:
        InvalidParameter: it is none of ``full``, ``auto`` and ``x,y,w,h``.

    """
    if not re.match(ROI_PATTERN, roi):
        raise InvalidParameter(f"roi is {roi[:80]!r}, but it should be {ROI_FORMS}")


def locate(picture: Image.Image, roi: str) -> Box:
    """Return the box of an RGB picture that ``roi`` (``full``, ``auto`` or ``x,y,w,h``) names.

    Raises:
        InvalidParameter: ``roi`` is malformed, or leaves the picture.

    """
    frame = Box(0, 0, picture.width, picture.height)
    if roi == FULL:
        return frame
    if roi == "auto":
        return _lit_field(picture)
    check(roi)
    box = Box(*map(int, roi.split(",")))
    if min(box.width, box.height) < 1 or box.x + box.width > frame.width or box.y + box.height > frame.height:
        raise InvalidParameter(
            f"roi {roi} is not inside the picture of {frame.width}x{frame.height} pixels; send a box that is, or auto"
        )
    return box


def crop(picture: Image.Image, box: Box) -> Image.Image:
    """Cut the box out of a picture; the whole picture is returned as it is."""
    if box == Box(0, 0, picture.width, picture.height):
        return picture
    return picture.crop((box.x, box.y, box.x + box.width, box.y + box.height))


def _lit_field(picture: Image.Image) -> Box:
    """Find the bounding box of rows and columns that are lit; the whole frame when there is no clear answer."""
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
    """Map the first and last lit probe pixel outwards to frame pixels."""
    first, last = int(lit[0]), int(lit[-1]) + 1
    return first * full // probe, -(-last * full // probe)
