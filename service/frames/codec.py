"""Decoding and encoding of pictures. The header decides whether a picture is decoded, before any pixel is read."""

import io
import struct
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from model.transforms import Pixels
from pranet_client.pictures import Picture, RawPicture
from service.errors import InvalidRequest, TooManyPixels, UndecodableImage, UnsupportedImage
from service.frames import decode_limits, raw

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"RIFF")  # of JPEG, PNG and WebP, which nothing else begins with
GIF_START = b"GIF8"
READABLE = "JPEG, PNG, WebP, BMP or TIFF"
PNG_OPTIONS = (cv2.IMWRITE_PNG_COMPRESSION, 1)
# Masks are flat: trying PNG filters takes five times as long and saves nothing (``pranet bench parts``).
MASK_OPTIONS = (
    *PNG_OPTIONS,
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
)
# What Pillow raises for damaged files; EOFError and struct.error come from TIFF directories.
DAMAGED = (OSError, ValueError, SyntaxError, LookupError, EOFError, TypeError, struct.error, MemoryError)
TURNED = range(5, 9)  # EXIF orientations that swap width and height
SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N")


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
    if picture.width * picture.height > max_pixels:
        raise _too_many(max_pixels)
    unpacked = raw.unpack(picture)
    return unpacked, unpacked.size


def decode(data: bytes, max_pixels: int) -> Image.Image:
    """Decode an encoded still image to RGB, upright as a person sees it (EXIF orientation applied).

    Greyscale, palette, CMYK and 16-bit pictures become 8-bit RGB; transparency is blended with black.

    Raises:
        InvalidRequest: ``data`` is empty.
        UnsupportedImage: it is not a still image in a supported format.
        TooManyPixels: the header declares more than ``max_pixels``; nothing was decoded.
        UndecodableImage: the file is damaged.

    """
    return _decode(data, max_pixels, least_side=0)[0]


def _decode(data: bytes, max_pixels: int, least_side: int) -> tuple[Image.Image, tuple[int, int]]:
    if not data:
        raise InvalidRequest(f"the body is empty; send one {READABLE} picture")
    picture = _open(data, max_pixels)
    width, height = picture.size
    try:
        if least_side:
            picture.draft(None, (least_side, least_side))  # affects JPEGs only
        reduced = picture.size != (width, height)
        upright = _to_rgb(ImageOps.exif_transpose(picture))
        if not reduced:
            return upright, upright.size
        turned = picture.getexif().get(ExifTags.Base.Orientation, 1) in TURNED
        return upright, (height, width) if turned else (width, height)
    except DAMAGED as error:
        reason = f"the {picture.format} picture is damaged or incomplete ({error}); send it again"
        raise UndecodableImage(reason) from error


def size(picture: Picture, max_pixels: int) -> tuple[int, int]:
    """Return width and height of a picture, upright as a person sees it, from its header.

    Raises:
        ServiceError: see ``decode``; only faults in the header are found.

    """
    if isinstance(picture, RawPicture):
        return picture.width, picture.height
    header = _open(picture, max_pixels)
    try:
        turned = header.getexif().get(ExifTags.Base.Orientation, 1) in TURNED
    except DAMAGED as error:
        raise UndecodableImage(f"the picture's metadata is damaged ({error}); send it again") from error
    return (header.height, header.width) if turned else header.size


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


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """Open a picture by its header, and refuse it if it must not be decoded."""
    if data.startswith(GIF_START):
        raise UnsupportedImage(f"GIF is not supported; send {READABLE}")
    decode_limits.check(data)
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        if picture.width * picture.height > max_pixels:
            raise _too_many(max_pixels)
        if any(tile.codec_name == "bmp_rle" for tile in picture.tile):  # Pillow decodes it in Python, 0.2 us a pixel
            raise UnsupportedImage("run-length encoded BMP is not supported; send it uncompressed, or as PNG")
        # Not n_frames: it follows a TIFF's chain of pictures to its end. An MPO is a phone's JPEG with additions.
        if picture.format != "MPO" and getattr(picture, "is_animated", False):
            raise UnsupportedImage(f"the {picture.format} file contains more than one picture; send them one by one")
    except Image.DecompressionBombError as error:
        raise _too_many(max_pixels) from error
    except UnidentifiedImageError as error:
        raise UnsupportedImage(f"the body is not a supported image; send {READABLE}") from error
    except DAMAGED as error:
        raise UndecodableImage(f"the picture's header is damaged ({error}); send it again") from error
    return picture


def _too_many(max_pixels: int) -> TooManyPixels:
    return TooManyPixels(f"the picture has more than {max_pixels} pixels (MAX_IMAGE_PIXELS); send a smaller one")


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in SIXTEEN_BIT_MODES:  # Pillow would clip at 255 instead of scaling
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        raise UndecodableImage("the range of 32-bit pixels is unknown; send 8 or 16 bits per channel")
    if picture.has_transparency_data:
        layered = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, (0, 0, 0, 255)), layered).convert("RGB")
    return picture.convert("RGB")
