"""Opening pictures by their first bytes, for the service, training and evaluation alike.

The header decides. Its fields say what the pixels mean: bits per sample, planes, photometric interpretation, the range
of a colour map and the subsampling of chroma. Grey, palettes, CMYK and 16 bits become RGB of 8 bits; transparency is
blended with black; the picture is upright as a person sees it, by the orientation in EXIF or TIFF.
"""

import io
from pathlib import Path
from typing import Protocol

from PIL import Image
from PIL.WebPImagePlugin import WebPImageFile

from model.pictures import bmp, jpeg
from model.pictures.errors import DAMAGED, PictureError, UnknownFormat, damaged
from model.pictures.jpeg import Jpeg
from model.pictures.pillow import PillowPicture
from model.pictures.png import Png
from model.pictures.samples import Samples
from model.pictures.tiff import Tiff

READABLE = "JPEG, PNG, WebP, BMP or TIFF"
GIF_START, PNG_START, BMP_START = b"GIF8", b"\x89PNG", b"BM"
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class Opened(Protocol):
    """A picture whose header was read and accepted; nothing is decoded yet."""

    format: str

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, upright."""

    def rgb(self, least_side: int = 0) -> Image.Image:
        """Decode to RGB of 8 bits, upright; see ``PillowPicture.rgb``. Raises ``UnreadablePicture``."""

    def samples(self) -> Samples:
        """Decode to what is stored, upright; raises ``UnreadablePicture``."""


def opened(data: bytes) -> Opened:
    """Read the header of a picture.

    Raises:
        UnknownFormat: the bytes do not begin as JPEG, PNG, WebP, BMP or TIFF.
        UnreadablePicture: the header is damaged, or of a variant that is not supported.

    """
    if data.startswith(jpeg.START):
        return Jpeg(data)
    if data.startswith(PNG_START):
        return Png(data)
    if data.startswith(TIFF_STARTS):
        return Tiff(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    if data.startswith(BMP_START):
        return bmp.opened(data)
    if data.startswith(GIF_START):
        raise UnknownFormat("GIF is not supported", f"send {READABLE}")
    raise UnknownFormat("the bytes are not a supported image", f"send {READABLE}")


def _webp(data: bytes) -> PillowPicture:
    try:
        picture = WebPImageFile(io.BytesIO(data))
    except DAMAGED as error:
        raise damaged("WebP", error) from error
    return PillowPicture(picture, picture.info.get("exif"))


def read_image(path: Path) -> Image.Image:
    """Read a file as RGB of 8 bits, upright as a person sees it.

    Raises:
        PictureError: it cannot be read; the message names the file.

    """
    try:
        return opened(path.read_bytes()).rgb()
    except (OSError, PictureError) as error:
        raise _of_file(path, error) from error


def read_samples(path: Path) -> Samples:
    """Read a file as it is stored, upright.

    Raises:
        PictureError: it cannot be read; the message names the file.

    """
    try:
        return opened(path.read_bytes()).samples()
    except (OSError, PictureError) as error:
        raise _of_file(path, error) from error


def _of_file(path: Path, error: Exception) -> PictureError:
    reason = error.reason if isinstance(error, PictureError) else error
    return PictureError(f"{path} cannot be read ({reason})", "replace it, or leave it out by --exclude")
