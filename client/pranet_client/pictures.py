"""The pictures that the service accepts: encoded, or raw pixels."""

from dataclasses import dataclass
from enum import StrEnum


class PixelFormat(StrEnum):
    """Layouts of raw pixels."""

    RGB24 = "rgb24"  # R, G, B in three bytes
    BGR24 = "bgr24"  # B, G, R in three bytes
    RGBA = "rgba"  # R, G, B and one byte that is ignored
    NV12 = "nv12"  # a plane of luma, then one of interleaved chroma at half size
    UYVY = "uyvy"  # Cb, Y, Cr, Y: two pixels in four bytes


class ColorMatrix(StrEnum):
    """Matrices between RGB and Y'CbCr."""

    BT601 = "bt601"
    BT709 = "bt709"
    BT2020 = "bt2020"  # non-constant luminance


class ColorRange(StrEnum):
    """Levels of Y'CbCr in 8 bits."""

    LIMITED = "limited"  # luma from 16 to 235
    FULL = "full"  # luma from 0 to 255


@dataclass(frozen=True, slots=True)
class RawPicture:
    """Pixels as a capture card delivers them."""

    format: PixelFormat | None  # None: a format that the service does not know and refuses
    width: int  # pixels
    height: int
    stride: int  # bytes from one row to the next, in both planes of NV12
    data: bytes
    matrix: ColorMatrix | None = None  # of NV12 and UYVY; None: BT.601 up to 576 rows, BT.709 below 2160, then BT.2020
    range: ColorRange = ColorRange.LIMITED  # of NV12 and UYVY


Picture = bytes | RawPicture  # bytes: JPEG, PNG, WebP, BMP or TIFF


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """One frame of a video."""

    frame_id: int
    picture: Picture
    captured: float  # time.monotonic() of this machine, seconds
    presented: float | None = None  # of a recording: its time in it, seconds, which smoothing counts by
    damaged: bool = False  # a part of it was lost, and its decoder made up the pixels
