"""Raw pixels, as capture cards deliver them, to RGB.

Y'CbCr is converted by the equations of ITU-T H.273, 8.3: the matrix follows from the weights of red and blue in luma.
"""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from model.transforms import Pixels
from pranet_client.pictures import ColorMatrix, ColorRange, PixelFormat, RawPicture
from service.errors import InvalidParameter

LUMA_WEIGHTS = {  # of red and blue
    ColorMatrix.BT601: (0.299, 0.114),
    ColorMatrix.BT709: (0.2126, 0.0722),
    ColorMatrix.BT2020: (0.2627, 0.0593),
}
SD_ROWS, HD_ROWS = 576, 2159  # BT.601 up to the first, BT.709 up to the second, then BT.2020: as GStreamer assumes
BYTES_PER_PIXEL = {  # of a row; NV12: of luma
    PixelFormat.RGB24: 3,
    PixelFormat.BGR24: 3,
    PixelFormat.RGBA: 4,
    PixelFormat.UYVY: 2,
    PixelFormat.NV12: 1,
}


def row_bytes(form: PixelFormat, width: int) -> int:
    """Return how many bytes the pixels of one row take."""
    return width * BYTES_PER_PIXEL[form]


def unpack(raw: RawPicture) -> Image.Image:
    """Copy a picture out of its padded rows, and convert it to RGB; the alpha of RGBA is ignored.

    Raises:
        InvalidParameter: format, width, height, stride and number of bytes contradict each other.

    """
    if raw.format is None:
        raise InvalidParameter(
            f"the pixel format, matrix or range is unknown; send {' or '.join(PixelFormat)}, or an encoded picture"
        )
    nv12 = raw.format is PixelFormat.NV12
    if (raw.format in YUV and raw.width % 2) or (nv12 and raw.height % 2):
        even = "even width and height" if nv12 else "an even width"
        name = raw.format.upper()
        raise InvalidParameter(f"{name} frames cannot have {raw.width}x{raw.height} pixels; send {even}")
    pixels = _rows(raw, raw.height * 3 // 2 if nv12 else raw.height, row_bytes(raw.format, raw.width))
    return Image.fromarray(CONVERSIONS[raw.format](pixels, raw))


def _rows(raw: RawPicture, rows: int, used: int) -> Pixels:
    """Return uint8 (rows, used) without the padding."""
    if min(raw.width, raw.height) < 1 or raw.stride < used or len(raw.data) < raw.stride * (rows - 1) + used:
        given = f"{raw.width}x{raw.height} with stride {raw.stride} in {len(raw.data)} bytes"
        raise InvalidParameter(
            f"the {raw.format} frame is inconsistent: {given}; correct its width, height, stride or data"
        )
    padded = np.frombuffer(raw.data, np.uint8)
    last = raw.stride * (rows - 1)  # the last row may have no padding; a large stride would make that gigabytes
    pixels = np.empty((rows, used), np.uint8)
    pixels[:-1] = padded[:last].reshape(rows - 1, raw.stride)[:, :used]
    pixels[-1] = padded[last : last + used]
    return pixels


def _from_rgb(order: slice) -> Callable[[Pixels, RawPicture], Pixels]:
    return lambda pixels, raw: np.ascontiguousarray(pixels.reshape(raw.height, raw.width, -1)[:, :, order])


def _from_nv12(pixels: Pixels, raw: RawPicture) -> Pixels:
    return _from_yuv(pixels[: raw.height], pixels[raw.height :].reshape(raw.height // 2, raw.width // 2, 2), raw)


def _from_uyvy(pixels: Pixels, raw: RawPicture) -> Pixels:
    chroma = np.ascontiguousarray(pixels[:, ::2]).reshape(raw.height, raw.width // 2, 2)
    return _from_yuv(np.ascontiguousarray(pixels[:, 1::2]), chroma, raw)


def _from_yuv(luma: Pixels, chroma: Pixels, raw: RawPicture) -> Pixels:
    """Convert luma (H, W) and reduced chroma (h, w, 2)."""
    spread = cv2.resize(chroma, (raw.width, raw.height), interpolation=cv2.INTER_NEAREST)
    rgb = cv2.transform(cv2.merge((luma, spread)), to_rgb_matrix(matrix_of(raw), raw.range))
    return np.asarray(rgb, dtype=np.uint8)


def matrix_of(raw: RawPicture) -> ColorMatrix:
    """Return the matrix that a picture names, or the one that its number of rows means."""
    if raw.matrix is not None:
        return raw.matrix
    if raw.height <= SD_ROWS:
        return ColorMatrix.BT601
    return ColorMatrix.BT709 if raw.height <= HD_ROWS else ColorMatrix.BT2020


def to_rgb_matrix(matrix: ColorMatrix, levels: ColorRange) -> npt.NDArray[np.float64]:
    """Return the affine map, (3, 4), from 8-bit Y, Cb and Cr to R, G and B, 0 to 255."""
    red, blue = LUMA_WEIGHTS[matrix]
    green = 1 - red - blue
    chroma = np.array(
        [
            [1, 0, 2 * (1 - red)],
            [1, -2 * blue * (1 - blue) / green, -2 * red * (1 - red) / green],
            [1, 2 * (1 - blue), 0],
        ]
    )
    full = levels is ColorRange.FULL
    scaled = chroma * ([1, 1, 1] if full else [255 / 219, 255 / 224, 255 / 224])
    return np.column_stack([scaled, -scaled @ [0 if full else 16, 128, 128]])


YUV = frozenset({PixelFormat.NV12, PixelFormat.UYVY})
CONVERSIONS: dict[PixelFormat, Callable[[Pixels, RawPicture], Pixels]] = {
    PixelFormat.RGB24: _from_rgb(np.s_[:3]),
    PixelFormat.BGR24: _from_rgb(np.s_[::-1]),
    PixelFormat.RGBA: _from_rgb(np.s_[:3]),
    PixelFormat.NV12: _from_nv12,
    PixelFormat.UYVY: _from_uyvy,
}
