"""Bytes <-> pictures: what may be decoded is decided by the header, before any pixel is touched."""

import io
import struct
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from model.transforms import Pixels
from pranet_client.pictures import Picture, PixelFormat, RawPicture
from service.errors import InvalidParameter, InvalidRequest, TooManyPixels, UndecodableImage, UnsupportedImage
from service.frames import decode_limits

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
GIF_START = b"GIF8"
READABLE = "JPEG, PNG, WebP, BMP or TIFF"
PNG_OPTIONS = (cv2.IMWRITE_PNG_COMPRESSION, 1)
# Masks are flat: trying filters takes five times as long and saves nothing (``pranet bench parts``).
MASK_OPTIONS = (
    *PNG_OPTIONS,
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
)
# What Pillow's readers raise over damaged files; EOFError and struct.error come from TIFF directories.
DAMAGED = (OSError, ValueError, SyntaxError, LookupError, EOFError, TypeError, struct.error, MemoryError)
TURNED = range(5, 9)  # EXIF orientations that swap width and height
SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N")


def read_mask(png: bytes) -> npt.NDArray[np.uint8]:
    """Return the grey pixels (H, W) of a mask that the service has encoded."""
    return np.asarray(Image.open(io.BytesIO(png)))


Packed = Callable[[], Picture]  # in an archive or object, unpacked when its turn comes; raises ServiceError


def to_rgb(picture: Picture, max_pixels: int, least_side: int = 0) -> tuple[Image.Image, tuple[int, int]]:
    """Make RGB of an encoded or raw picture; returns also its whole width and height.

    Args:
        picture: encoded, or raw pixels.
        max_pixels: limit of the whole picture.
        least_side: where above 0, a JPEG may be decoded at a half, a quarter or an eighth of its size (its decoder
            leaves out high frequencies) while its sides are not below this many pixels.

    Raises:
        InvalidParameter: width, height, stride and the number of bytes do not fit each other.
        ServiceError: as ``decode``.

    """
    if isinstance(picture, bytes):
        return _decode(picture, max_pixels, least_side)
    unpacked = _unpack(picture, max_pixels)
    return unpacked, unpacked.size


def decode(data: bytes, max_pixels: int) -> Image.Image:
    """Decode an encoded still image to RGB in the geometry a person sees (EXIF orientation applied).

    Greyscale, palette, CMYK and 16-bit pictures become 8-bit RGB; transparency is laid over black.

    Raises:
        InvalidRequest: no bytes.
        UnsupportedImage: not a still image of a known type.
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
            picture.draft(None, (least_side, least_side))  # does nothing to what is no JPEG
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
    """Return width and height of a picture as a person sees it, from its header.

    Raises:
        ServiceError: as ``decode``, as far as the header tells.

    """
    if isinstance(picture, RawPicture):
        return picture.width, picture.height
    header = _open(picture, max_pixels)
    try:
        turned = header.getexif().get(ExifTags.Base.Orientation, 1) in TURNED
    except DAMAGED as error:
        raise UndecodableImage(f"the picture's metadata are damaged ({error}); send it again") from error
    return (header.height, header.width) if turned else header.size


def encode_mask(mask: Pixels) -> bytes:
    """Encode a mask, uint8 (H, W) of 0 and 255, as an 8-bit grey PNG."""
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
    """Take the picture out of its padded rows."""
    if raw.format is None:
        raise InvalidParameter(f"the pixel format is not known; send {' or '.join(PixelFormat)}, or an encoded picture")
    nv12 = raw.format is PixelFormat.NV12
    if nv12 and (raw.width % 2 or raw.height % 2):
        raise InvalidParameter(f"NV12 has no {raw.width}x{raw.height} pixels; send frames with even sides")
    if raw.width * raw.height > max_pixels:
        raise _too_many(max_pixels)
    row_bytes = raw.width if nv12 else 3 * raw.width
    rows = raw.height * 3 // 2 if nv12 else raw.height
    if min(raw.width, raw.height) < 1 or raw.stride < row_bytes or len(raw.data) < raw.stride * (rows - 1) + row_bytes:
        given = f"{raw.width}x{raw.height} with stride {raw.stride} in {len(raw.data)} bytes"
        raise InvalidParameter(f"{raw.format} of {given} cannot be; see the description of raw frames")
    padded = np.frombuffer(raw.data, np.uint8)
    last = raw.stride * (rows - 1)  # this row may come without its padding, which could be gigabytes by its stride
    pixels = np.empty((rows, row_bytes), np.uint8)
    pixels[:-1] = padded[:last].reshape(rows - 1, raw.stride)[:, :row_bytes]
    pixels[-1] = padded[last : last + row_bytes]
    if nv12:
        return Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_YUV2RGB_NV12))
    return Image.fromarray(pixels.reshape(raw.height, raw.width, 3))


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header only, and refuse what will not be decoded."""
    if data.startswith(GIF_START):
        raise UnsupportedImage(f"GIF is not read here; send {READABLE}")
    decode_limits.check(data)
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        if picture.width * picture.height > max_pixels:
            raise _too_many(max_pixels)
        if any(tile.codec_name == "bmp_rle" for tile in picture.tile):  # Pillow's is in Python: 0.2 us a pixel
            raise UnsupportedImage("a BMP of run lengths is not read here; send it uncompressed, or as PNG")
        # Never n_frames: Pillow would follow a TIFF's chain to its end. MPO: a phone's JPEG and more.
        if picture.format != "MPO" and getattr(picture, "is_animated", False):
            raise UnsupportedImage(f"the {picture.format} file holds more than one picture; send its frames one by one")
    except Image.DecompressionBombError as error:
        raise _too_many(max_pixels) from error
    except UnidentifiedImageError as error:
        raise UnsupportedImage(f"the body is not an image that is read here; send {READABLE}") from error
    except DAMAGED as error:
        raise UndecodableImage(f"the picture's header is damaged ({error}); send it again") from error
    return picture


def _too_many(max_pixels: int) -> TooManyPixels:
    return TooManyPixels(f"the picture declares more than {max_pixels} pixels (MAX_IMAGE_PIXELS); send a smaller one")


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in SIXTEEN_BIT_MODES:  # Pillow would clip at 255 instead of scaling
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        raise UndecodableImage("32-bit pixels have no known range; send 8 or 16 bits a channel")
    if picture.has_transparency_data:
        layered = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, (0, 0, 0, 255)), layered).convert("RGB")
    return picture.convert("RGB")
