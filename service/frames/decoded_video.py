"""Decoded frames of PyAV as players show them: turned by the display matrix, in the colours of their tags.

The display matrix is that of ISO/IEC 14496-12, 6.2.2: it maps a pixel (p, q) to (a p + c q, b p + d q). Players turn by
quarters; another angle is taken as the nearest one.
"""

from typing import Any

import numpy as np

from model.transforms import Pixels
from pranet_client.pictures import PixelFormat, RawPicture

BT709, UNSPECIFIED = 1, 2  # matrices of ITU-T H.273, table 4
Matrix = tuple[int, ...]

SD_ROWS = 576  # video without a tag is BT.709 above this, and BT.601 up to it, as players assume


def display_matrix(frame: Any) -> Matrix | None:
    """Return the first five numbers of the display matrix of a decoded frame, None if it has none.

    Ask the first frame of a stream only: in PyAV 18, ``side_data`` and its frame refer to each other, so that each
    frame stays in memory until the garbage collector runs.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    return None if matrix is None else tuple(int(each) for each in np.frombuffer(bytes(matrix), np.int32)[:5])


def upright(frame: Any, matrix: Matrix | None) -> Pixels:
    """Return a decoded frame of PyAV as uint8 RGB (H, W, 3), as a player shows it with this display matrix."""
    if frame.colorspace == UNSPECIFIED and frame.height > SD_ROWS:
        frame.colorspace = BT709
    pixels = frame.to_ndarray(format="rgb24")
    if matrix is None:
        return np.asarray(pixels)
    a, b, _, c, d = matrix
    turned = abs(b) + abs(c) > abs(a) + abs(d)
    if turned:
        pixels = pixels.transpose(1, 0, 2)
    across, down = (c, b) if turned else (a, d)
    return np.ascontiguousarray(pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


def raw_picture(pixels: Pixels) -> RawPicture:
    """Return uint8 RGB pixels (H, W, 3) as a raw picture."""
    height, width, _ = pixels.shape
    return RawPicture(PixelFormat.RGB24, width, height, 3 * width, pixels.tobytes())
