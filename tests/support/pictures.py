"""Pictures and masks for tests."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.Image import Transpose

ROOT = Path(__file__).parents[2]
SAMPLES = tuple(sorted((ROOT / "service" / "samples").glob("polyp-*.jpg")))
DATA = ROOT / "tests" / "data"
# How a picture is stored that its EXIF orientation turns upright: the inverse of what CIPA DC-008 asks of viewers.
STORED = {
    1: None,
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_90,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_270,
}
ORIENTATION = 0x0112  # of EXIF

Mask = npt.NDArray[np.bool_]


def annotation(sample: Path) -> Mask:
    """Return what an expert drew on a sample frame."""
    return np.asarray(Image.open(DATA / f"{sample.stem}-mask.png")) > 0


def red_box(width: int, height: int, box: tuple[int, int, int, int]) -> Image.Image:
    """Paint a red rectangle (left, top, right, bottom) on black: its own mask for ``RedPredictor``."""
    picture = Image.new("RGB", (width, height))
    picture.paste((255, 0, 0), box)
    return picture


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Encode a picture with Pillow."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(picture: Image.Image, orientation: int, kind: str, **options: Any) -> bytes:
    """Encode a picture as it is stored that an EXIF orientation, 1 to 8, turns upright."""
    turn = STORED[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(picture if turn is None else picture.transpose(turn), kind, exif=exif, **options)


def repeat_last_scan(jpeg: bytes, times: int) -> bytes:
    """Make a decoder pass over the pixels as many times more."""
    end = len(jpeg) - 2
    return jpeg[:end] + jpeg[jpeg.rindex(b"\xff\xda") : end] * times + jpeg[end:]


def mask_of(png: bytes) -> Mask:
    """Read a mask as the service answers it: one channel, nothing between 0 and 255."""
    picture = Image.open(io.BytesIO(png))
    assert (picture.format, picture.mode) == ("PNG", "L")
    levels = np.asarray(picture)
    assert np.isin(levels, (0, 255)).all()
    return levels > 0


def dice(one: Mask, other: Mask) -> float:
    """Return the overlap of two masks, 0 to 1; two empty ones agree."""
    assert one.shape == other.shape
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else 1.0
