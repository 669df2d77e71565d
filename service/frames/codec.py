"""Decoding and encoding of pictures. The header decides whether a picture is decoded, before any pixel is read."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from model.pictures import reading
from model.pictures.errors import PictureError, UnknownFormat
from model.pictures.reading import READABLE, Opened
from model.transforms import Pixels
from pranet_client.pictures import Picture, PixelFormat, RawPicture
from service.errors import InvalidParameter, InvalidRequest, TooManyPixels, UndecodableImage, UnsupportedImage
from service.frames import decode_limits

PNG_OPTIONS = (cv2.IMWRITE_PNG_COMPRESSION, 1)
# Masks are flat: trying PNG filters takes five times as long and saves nothing (``pranet bench parts``).
MASK_OPTIONS = (
    *PNG_OPTIONS,
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
)


def read_mask(png: bytes) -> npt.NDArray[np.uint8]:
    """Decode a mask of this service to uint8 (H, W), 255 for polyp and 0 elsewhere."""
    return np.asarray(Image.open(io.BytesIO(png)))


Packed = Callable[[], Picture]  # unpacks a picture from its container; raises ServiceError


def to_rgb(picture: Picture, max_pixels: int, least_side: int = 0) -> tuple[Image.Image, tuple[int, int]]:
    """Decode a picture to RGB; returns it with the width and height it has at full size.

    Args:
        picture: encoded or raw.
        max_pixels: largest picture, at full size.
        least_side: if above 0, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, as long as both sides keep this
            many pixels. It is faster, since the decoder skips high frequencies.

    Raises:
        InvalidParameter: width, height, stride and number of bytes of a raw picture contradict each other.
        ServiceError: see ``decode``.

    """
    if isinstance(picture, bytes):
        return _decode(picture, max_pixels, least_side)
    unpacked = _unpack(picture, max_pixels)
    return unpacked, unpacked.size


def decode(data: bytes, max_pixels: int) -> Image.Image:
    """Decode an encoded still image to RGB, upright as a person sees it (EXIF orientation applied).

    See ``model.pictures.reading``, which training and evaluation read with as well.

    Raises:
        InvalidRequest: ``data`` is empty.
        UnsupportedImage: it does not begin as a supported format.
        TooManyPixels: the header declares more than ``max_pixels``; nothing was decoded.
        UndecodableImage: the file is damaged, or of a variant that is not supported.

    """
    return _decode(data, max_pixels, least_side=0)[0]


def _decode(data: bytes, max_pixels: int, least_side: int) -> tuple[Image.Image, tuple[int, int]]:
    if not data:
        raise InvalidRequest(f"the body is empty; send one {READABLE} picture")
    picture = _open(data, max_pixels)
    try:
        return picture.rgb(least_side), picture.size
    except PictureError as error:
        raise UndecodableImage(str(error)) from error


def size(picture: Picture, max_pixels: int) -> tuple[int, int]:
    """Return width and height of a picture, upright as a person sees it, from its header.

    Raises:
        ServiceError: see ``decode``; only faults in the header are found.

    """
    if isinstance(picture, RawPicture):
        return picture.width, picture.height
    return _open(picture, max_pixels).size


def encode_mask(mask: Pixels) -> bytes:
    """Encode a mask, uint8 (H, W) of 0 and 255, as 8-bit grey PNG."""
    return _encode_png(mask, MASK_OPTIONS)


def encode_png(pixels: Pixels | npt.NDArray[np.uint16]) -> bytes:
    """Encode grey (H, W) in 8 or 16 bits, or RGB uint8 (H, W, 3), as PNG."""
    return _encode_png(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels, PNG_OPTIONS)


def _encode_png(pixels: npt.NDArray[Any], options: Sequence[int]) -> bytes:
    done, buffer = cv2.imencode(".png", pixels, options)
    if not done:
        raise ValueError(f"cannot encode {pixels.dtype} {pixels.shape} as PNG")
    return buffer.tobytes()


def _unpack(raw: RawPicture, max_pixels: int) -> Image.Image:
    """Copy the picture out of its padded rows, and convert it to RGB."""
    if raw.format is None:
        raise InvalidParameter(f"the pixel format is unknown; send {' or '.join(PixelFormat)}, or an encoded picture")
    nv12 = raw.format is PixelFormat.NV12
    if nv12 and (raw.width % 2 or raw.height % 2):
        raise InvalidParameter(f"an NV12 frame cannot have {raw.width}x{raw.height} pixels; send even width and height")
    if raw.width * raw.height > max_pixels:
        raise _too_many(max_pixels)
    row_bytes = raw.width if nv12 else 3 * raw.width
    rows = raw.height * 3 // 2 if nv12 else raw.height
    if min(raw.width, raw.height) < 1 or raw.stride < row_bytes or len(raw.data) < raw.stride * (rows - 1) + row_bytes:
        given = f"{raw.width}x{raw.height} with stride {raw.stride} in {len(raw.data)} bytes"
        raise InvalidParameter(
            f"the {raw.format} frame is inconsistent: {given}; correct its width, height, stride or data"
        )
    padded = np.frombuffer(raw.data, np.uint8)
    last = raw.stride * (rows - 1)  # the last row may have no padding; a large stride would make that gigabytes
    pixels = np.empty((rows, row_bytes), np.uint8)
    pixels[:-1] = padded[:last].reshape(rows - 1, raw.stride)[:, :row_bytes]
    pixels[-1] = padded[last : last + row_bytes]
    if nv12:
        return Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_YUV2RGB_NV12))
    return Image.fromarray(pixels.reshape(raw.height, raw.width, 3))


def _open(data: bytes, max_pixels: int) -> Opened:
    """Open a picture by its header, and refuse it if it must not be decoded."""
    decode_limits.check(data)
    try:
        picture = reading.opened(data)
    except UnknownFormat as error:
        raise UnsupportedImage(str(error)) from error
    except PictureError as error:
        raise UndecodableImage(str(error)) from error
    if picture.size[0] * picture.size[1] > max_pixels:
        raise _too_many(max_pixels)
    return picture


def _too_many(max_pixels: int) -> TooManyPixels:
    return TooManyPixels(f"the picture has more than {max_pixels} pixels (MAX_IMAGE_PIXELS); send a smaller one")
