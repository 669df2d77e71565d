"""Decoding and encoding of pictures. The header decides whether a picture is decoded, before any pixel is read."""

import io
import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from zlib_ng import zlib_ng

from model.pictures import reading
from model.pictures.errors import PictureError, TooLarge, UnknownFormat
from model.pictures.limits import MAX_SIDE, too_long
from model.pictures.reading import READABLE
from model.transforms import Pixels
from pranet_client.pictures import Picture, RawPicture
from service.errors import (
    InvalidParameter,
    InvalidRequest,
    ServiceError,
    TooManyPixels,
    UndecodableImage,
    UnsupportedImage,
)
from service.frames import foreign, raw

STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"RIFF")  # of JPEG, PNG and WebP, which nothing else begins with
PNG_OPTIONS = (cv2.IMWRITE_PNG_COMPRESSION, 1)
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY_OF_8_BITS = bytes((8, 0, 0, 0, 0))  # depth, colour type, and the only methods of compression, filters, interlacing


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
        InvalidParameter: width, height, stride and number of bytes of a raw picture contradict each other, or a side is
            longer than ``MAX_SIDE``.
        ServiceError: see ``decode``.

    """
    if isinstance(picture, bytes):
        return _decode(picture, max_pixels, least_side)
    if picture.width * picture.height > max_pixels:
        raise _too_many(max_pixels)
    if max(picture.width, picture.height) > MAX_SIDE:
        raise InvalidParameter(str(too_long(picture.width, picture.height)))
    unpacked = raw.unpack(picture)
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
        raise _nothing()
    try:
        return reading.read(data, max_pixels, least_side)
    except PictureError as error:
        raise _refusal(error, data, max_pixels) from error


def size(picture: Picture, max_pixels: int) -> tuple[int, int]:
    """Return width and height of a picture, upright as a person sees it, from its header.

    Raises:
        ServiceError: see ``decode``; only faults in the header are found.

    """
    if isinstance(picture, RawPicture):
        return picture.width, picture.height
    if not picture:
        raise _nothing()
    try:
        return reading.opened(picture, max_pixels).size
    except PictureError as error:
        raise _refusal(error, picture, max_pixels) from error


def encode_mask(mask: Pixels) -> bytes:
    """Encode a mask, uint8 (H, W) of 0 and 255, as 8-bit grey PNG.

    Masks are flat: run lengths of unfiltered rows are as small as anything, and zlib-ng finds them in a fifth of the
    time of OpenCV (``pranet bench parts``). The chunks are those of the PNG specification, third edition, 5.3.
    """
    height, width = mask.shape
    rows = np.zeros((height, 1 + width), np.uint8)  # the first byte of a row says that it is not filtered
    rows[:, 1:] = mask
    deflate = zlib_ng.compressobj(1, strategy=zlib_ng.Z_RLE)
    pixels = deflate.compress(rows) + deflate.flush()
    header = struct.pack(">II", width, height) + GREY_OF_8_BITS
    return PNG_SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def encode_png(pixels: Pixels | npt.NDArray[np.uint16]) -> bytes:
    """Encode grey (H, W) in 8 or 16 bits, or RGB uint8 (H, W, 3), as PNG."""
    in_order = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels  # OpenCV's
    done, buffer = cv2.imencode(".png", in_order, PNG_OPTIONS)
    if not done:
        raise ValueError(f"cannot encode {pixels.dtype} {pixels.shape} as PNG")
    return buffer.tobytes()


def _refusal(error: PictureError, data: bytes, max_pixels: int) -> ServiceError:
    if isinstance(error, TooLarge):
        return _too_many(max_pixels)
    if isinstance(error, UnknownFormat):
        return UnsupportedImage(foreign.kind_of(data) or str(error))
    return UndecodableImage(str(error))


def _too_many(max_pixels: int) -> TooManyPixels:
    return TooManyPixels(f"the picture has more than {max_pixels} pixels (MAX_IMAGE_PIXELS); send a smaller one")


def _nothing() -> InvalidRequest:
    return InvalidRequest(f"the picture is empty; send one {READABLE} picture")
