"""Reading pictures by what their bytes say: the one reader of the service, training and evaluation.

The header decides. Its fields say what the pixels mean: bits per sample, planes, photometric interpretation, the range
of a colour map and the subsampling of chroma. Grey, palettes, CMYK and 16 bits become RGB of 8 bits; transparency is
blended with black; the picture is upright as a person sees it, by the orientation in EXIF or TIFF.

An ordinary JPEG is read in this module alone. What its frame header or its first bytes show as unusual is handed to the
modules beside it. Markers and segments: ITU-T T.81, B.1.1, and T.87.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from PIL.JpegImagePlugin import jpeg_factory
from PIL.WebPImagePlugin import WebPImageFile

from model.pictures import bmp, jpeg, pillow
from model.pictures.errors import DAMAGED, PictureError, TooLarge, UnknownFormat, damaged
from model.pictures.jpeg import Frame
from model.pictures.limits import MAX_SCANS, MAX_SIDE, MAX_STEPS, too_long, too_many_scans, too_many_steps
from model.pictures.pillow import TURNS, PillowFile
from model.pictures.png import Png
from model.pictures.samples import SWAPPED, Samples, Stored
from model.pictures.tiff import Tiff

READABLE = "JPEG, PNG, WebP, BMP or TIFF"
JPEG_START, GIF_START, PNG_START, BMP_START = b"\xff\xd8", b"GIF8", b"\x89PNG", b"BM"
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")  # skips stuffed zeros, restart markers and fill bytes
SCALES = (8, 4, 2)  # at whose fractions libjpeg decodes
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
# In the standard, JPG and JPG0 to JPG13 have parameters, but Pillow searches them for markers.
WITHOUT_PARAMETERS = frozenset((0xC8, 0xD8, END_OF_IMAGE, *range(0xF0, 0xFE)))


class Opened:
    """A picture whose header was read and accepted; nothing is decoded yet."""

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        self.size = stored.size[::-1] if stored.orientation in SWAPPED else stored.size  # width and height, upright

    def rgb(self, least_side: int = 0) -> Image.Image:
        """Decode to RGB of 8 bits, upright and over black.

        Args:
            least_side: if above 0, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, as long as both sides keep
                this many pixels, and become whole numbers of them. It is faster, since the decoder skips high
                frequencies.

        Raises:
            UnreadablePicture: the file is damaged, or the range of its samples is unknown.

        """
        picture = self._stored.decode(least_side)
        if isinstance(picture, Samples):
            picture = picture.rgb()
        elif picture.mode != "RGB" or "transparency" in picture.info:
            picture = pillow.rgb(picture)
        turn = TURNS.get(self._stored.orientation)
        return picture if turn is None else picture.transpose(turn)

    def samples(self) -> Samples:
        """Decode to what is stored, upright and over black.

        Raises:
            UnreadablePicture: the file is damaged, or the range of its samples is unknown.

        """
        decoded = self._stored.decode(least_side=0)
        samples = decoded if isinstance(decoded, Samples) else pillow.samples(decoded)
        return samples.upright(self._stored.orientation)


class Jpeg:
    """A JPEG, or the MPO of a phone, which is a JPEG with additions."""

    def __init__(self, data: bytes) -> None:
        """Read the header.

        Raises:
            UnreadablePicture: it is damaged, of a variant that is not supported, or exceeds a limit.

        """
        self._data, self._frame = data, _frame(data)
        try:
            self._picture = jpeg_factory(io.BytesIO(data))
        except DAMAGED as error:
            raise jpeg.explained(data, self._frame, error) from error
        self.size = self._picture.size
        exif = self._picture.info.get("exif")
        self.orientation = pillow.orientation(exif) if exif else 1

    def decode(self, least_side: int) -> Image.Image:
        """Decode as stored, at a fraction of the size if ``least_side`` allows it."""
        picture, marker = self._picture, self._frame.marker
        try:
            if marker in jpeg.ARITHMETIC:
                picture.decodermaxblock = len(self._data)  # at once: libjpeg cannot wait for more of such data
            if marker == jpeg.LOSSLESS:
                return jpeg.lossless(picture)  # it has no smaller sizes
            scale = next((scale for scale in SCALES if least_side and self._fits(scale, least_side)), 1)
            if scale > 1:
                picture.draft(None, (self.size[0] // scale, self.size[1] // scale))
            picture.load()
        except DAMAGED as error:
            raise jpeg.explained(self._data, self._frame, error) from error
        return picture

    def _fits(self, scale: int, least_side: int) -> bool:
        """Whether the sides are multiples: of another one, the last pixel would stand for more than there is."""
        return all(side % scale == 0 and side // scale >= least_side for side in self.size)


def _frame(data: bytes) -> Frame:
    """Return the first frame header; all segments are visited, which limits the number of scans."""
    first = jpeg.NO_FRAME
    for marker, at in jpeg_segments(data):
        if first is jpeg.NO_FRAME and marker in jpeg.FRAME_HEADERS and at + jpeg.FRAME_BYTES <= len(data):
            first = Frame(marker, bits=data[at + 2], components=data[at + 7])
    return first


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the second byte of each marker and the offset of its parameters, up to the end of the image or data.

    Raises:
        UnreadablePicture: it has more than ``MAX_SCANS`` scans, or than ``MAX_STEPS`` segments and bytes between them.

    """
    at = steps = scans = 0
    while at < len(data):
        found = MARKER.search(data, at)
        start, behind = found.span() if found else (len(data), len(data))
        steps += 1 if scans else 1 + start - at  # after the first scan, the bytes between are coded pixels
        if steps > MAX_STEPS:
            raise too_many_steps("JPEG", "segments, or bytes between them")
        if not found:
            return
        marker = data[behind - 1]
        scans += marker == START_OF_SCAN
        if scans > MAX_SCANS:
            raise too_many_scans()
        yield marker, behind
        if marker == END_OF_IMAGE and scans:
            return
        at = behind if marker in WITHOUT_PARAMETERS else behind + max(2, int.from_bytes(data[behind : behind + 2]))


def opened(data: bytes, max_pixels: int | None = None) -> Opened:
    """Read the header of a picture.

    Args:
        data: the file.
        max_pixels: largest picture; None for no limit.

    Raises:
        UnknownFormat: the bytes do not begin as JPEG, PNG, WebP, BMP or TIFF.
        TooLarge: the header declares more than ``max_pixels``.
        UnreadablePicture: the header is damaged, of a variant that is not supported, or exceeds a limit such as
            ``MAX_SIDE``.

    """
    try:
        stored = Jpeg(data) if data.startswith(JPEG_START) else _other(data)
    except Image.DecompressionBombError as error:  # WebP, before its size could be asked for
        raise TooLarge("the picture has too many pixels", "send a smaller one") from error
    if max_pixels is not None and stored.size[0] * stored.size[1] > max_pixels:
        raise TooLarge(f"the picture has more than {max_pixels} pixels", "send a smaller one")
    if max(stored.size) > MAX_SIDE:
        raise too_long(*stored.size)
    return Opened(stored)


def read(data: bytes, max_pixels: int, least_side: int = 0) -> tuple[Image.Image, tuple[int, int]]:
    """Decode a picture to RGB of 8 bits, upright; returns it with the width and height it has at full size.

    Raises:
        PictureError: see ``opened`` and ``Opened.rgb``.

    """
    picture = opened(data, max_pixels)
    return picture.rgb(least_side), picture.size


def _other(data: bytes) -> Stored:
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
    raise UnknownFormat("the file is not a supported image", f"send {READABLE}")


def _webp(data: bytes) -> PillowFile:
    try:
        picture = WebPImageFile(io.BytesIO(data))
    except DAMAGED as error:
        raise damaged("WebP", error) from error
    return PillowFile(picture, picture.info.get("exif"))


def read_image(path: Path) -> Image.Image:
    """Read a file as RGB of 8 bits, upright as a person sees it.

    Raises:
        PictureError: it cannot be read; the message names the file.

    """
    with _named(path):
        return opened(path.read_bytes()).rgb()


def read_samples(path: Path) -> Samples:
    """Read a file as it is stored, upright.

    Raises:
        PictureError: it cannot be read; the message names the file.

    """
    with _named(path):
        return opened(path.read_bytes()).samples()


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, PictureError) as error:
        reason = error.reason if isinstance(error, PictureError) else error
        raise PictureError(f"{path} cannot be read ({reason})", "replace it, or leave it out") from error
