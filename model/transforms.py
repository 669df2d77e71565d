"""Pixels to network input, logits to mask; also the input size and the normalisation constants.

A picture is resized as Pillow does it, antialiased and bilinear, to the bit. Each pixel is a weighted sum along a row,
then one along a column, with weights of 22 bits, and each sum is rounded to 8 bits. So the order matters: it changes
one value in eight, by one level. PraNet's published code takes the width first, as every Pillow before 13 does; Pillow
13 takes the height first where that is less work, as in 1080x1920. Here it is always the width.

The fast way is ``resize.c``, with vector instructions (AVX2), in a quarter of Pillow's time. It is compiled when the
project is installed, if there is a C compiler.

For a mask at threshold t, the logits are upsampled to the frame's size (bilinear, ``align_corners=False``) and compared
with ``log(t / (1 - t))``. This equals ``sigmoid(logit) > t``, but needs no probability for every pixel.
"""

import ctypes
import functools
import math
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

SIZE = 352  # side of the network's square input, pixels, for which its weights are trained
SIZES = range(256, 513, 32)  # sides that the network may get instead: it halves a picture five times
MEAN = (0.485, 0.456, 0.406)  # ImageNet, RGB, for values in 0..1
STD = (0.229, 0.224, 0.225)
RESIZE_INTERFACE = 1  # of ``resize.c``, which has the same number
WEIGHT_BITS = 22  # of Pillow: the 32 of a sum, less 8 of a value, and 2 that keep it from overflowing
LANES = 16  # bytes: a pixel of each of the four rows that ``resize.c`` takes at once
BAND_PIXELS = 2**19  # copied and resized at once: 2 MiB; a whole large picture would leave the caches

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]


def _load(file: Path) -> ctypes.CDLL | None:
    """Load what was compiled; None if it is not there, of another version, or for other processors."""
    try:
        library = ctypes.CDLL(str(file))
        if library.pranet_resize_interface() != RESIZE_INTERFACE:
            return None
    except (OSError, AttributeError):
        return None
    pixels, pointer, number = ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int
    by_weights = pointer, pointer, number, number
    library.pranet_resize_rows.argtypes = pixels, number, number, *by_weights, pointer, pointer
    library.pranet_resize_columns.argtypes = pointer, *by_weights, number, pointer
    library.pranet_resize_rows.restype = library.pranet_resize_columns.restype = None
    return library


compiled = _load(Path(__file__).with_name(f"_resize{sysconfig.get_config_var('EXT_SUFFIX')}"))


def to_input(picture: Image.Image, size: int = SIZE) -> Pixels:
    """Resize an RGB picture of any size to uint8 (3, size, size); ``size`` is a multiple of four."""
    return resized_by_pillow(picture, size) if compiled is None else resized(compiled, picture, size)


def resized_by_pillow(picture: Image.Image, side: int) -> Pixels:
    """As ``to_input``, without ``resize.c``."""
    narrow = picture.resize((side, picture.height), Image.Resampling.BILINEAR)
    planes = np.empty((3, side, side), np.uint8)
    cv2.split(np.asarray(narrow.resize((side, side), Image.Resampling.BILINEAR)), list(planes))
    return planes


def resized(library: ctypes.CDLL, picture: Image.Image, side: int) -> Pixels:
    """As ``to_input``, by ``resize.c``, in bands of the result; other threads run meanwhile."""
    if side % 4:
        raise ValueError(f"a side of {side} pixels; it must be a multiple of four")
    width, height = picture.size
    planes, scratch = np.empty((3, side, side), np.uint8), np.empty((width + side) * LANES, np.uint8)
    columns, rows = _weights(width, side), _weights(height, side)
    for top, bottom in _bands(rows, max(width, side)):
        starts, weights = rows.starts[top:bottom], rows.weights[top:bottom]
        first, behind = int(starts[0]), int(starts[-1]) + rows.taps
        band = picture.crop((0, first, width, behind)) if behind - first < height else picture
        narrow = np.empty((band.height, side, 4), np.uint8)
        by_weights = columns.starts.ctypes.data, columns.weights.ctypes.data, columns.taps, side
        pixels = band.tobytes("raw", "RGBX")
        library.pranet_resize_rows(pixels, band.height, width, *by_weights, scratch.ctypes.data, narrow.ctypes.data)
        by_weights = starts.ctypes.data, weights.ctypes.data, rows.taps, side
        library.pranet_resize_columns(narrow.ctypes.data, *by_weights, bottom - top, planes[0, top:].ctypes.data)
    return planes


def upsample(logits: Floats, width: int, height: int) -> Floats:
    """Resize float32 logits (h, w) to float32 (height, width): bilinear, ``align_corners=False``."""
    larger = cv2.resize(logits, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(larger, dtype=np.float32)


def to_mask(logits: Floats, threshold: float) -> Pixels:
    """Map float32 logits (H, W) to a uint8 mask (H, W): 255 where the probability exceeds ``threshold``, else 0."""
    above = logits > logit(threshold)
    return np.multiply(above.view(np.uint8), np.uint8(255))


def sigmoid(logits: Floats) -> Floats:
    """Map logits of any shape to probabilities (0..1) of the same shape, float32, without overflow."""
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * logits), dtype=np.float32)


def logit(probability: float) -> float:
    """Return the logit of a probability: -inf at 0 or below, inf at 1 or above."""
    if probability <= 0:
        return -math.inf
    return math.inf if probability >= 1 else math.log(probability / (1 - probability))


class _Weights(NamedTuple):
    """How the pixels of one side are made: each is the weighted sum of ``taps`` pixels of the picture."""

    starts: Ints  # (side,), the first of them
    weights: Ints  # (side, taps), of 22 bits
    taps: int


@functools.lru_cache(maxsize=64)
def _weights(length: int, side: int) -> _Weights:
    """Return Pillow's weights: a triangle around a pixel's place, cut off at the borders.

    It reaches to the place of the next pixel of the result where the picture shrinks, and to the next pixel of the
    picture where it grows.
    """
    scale = length / side
    reach = max(1.0, scale)
    centres = (np.arange(side) + 0.5) * scale
    first = np.maximum(centres - reach + 0.5, 0).astype(int)
    behind = np.minimum(centres + reach + 0.5, length).astype(int)
    taps = int((behind - first).max())
    starts = np.minimum(first, length - taps)
    distances = np.abs(starts[:, None] + np.arange(taps) - centres[:, None] + 0.5) * (1.0 / reach)
    shares = np.maximum(1.0 - distances, 0.0)
    shares /= np.cumsum(shares, axis=1)[:, -1:]  # one after the other, as Pillow does: a sum by pairs rounds otherwise
    return _Weights(starts.astype(np.int32), (0.5 + shares * (1 << WEIGHT_BITS)).astype(np.int32), taps)


def _bands(rows: _Weights, width: int) -> Iterator[tuple[int, int]]:
    """Yield the first row of each band of the result and that behind it; a band needs some ``BAND_PIXELS``."""
    side, most = len(rows.starts), max(rows.taps, BAND_PIXELS // width)
    top = 0
    while top < side:
        bottom = int(np.searchsorted(rows.starts, rows.starts[top] + most - rows.taps, side="right"))
        yield top, bottom
        top = bottom
