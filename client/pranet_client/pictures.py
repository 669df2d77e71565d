"""The pictures that the service accepts: encoded, or raw pixels."""

from dataclasses import dataclass
from enum import StrEnum


class PixelFormat(StrEnum):
    """Layouts of raw pixels."""

    RGB24 = "rgb24"  # R, G, B in three bytes
    NV12 = "nv12"  # a plane of luma, then one of interleaved chroma at half size; BT.601, 16 to 235


@dataclass(frozen=True, slots=True)
class RawPicture:
    """Pixels as a capture card delivers them."""

    format: PixelFormat | None  # None: a format that the service does not know and refuses
    width: int  # pixels
    height: int
    stride: int  # bytes from one row to the next, in both planes of NV12
    data: bytes


Picture = bytes | RawPicture  # bytes: JPEG, PNG, WebP, BMP or TIFF
