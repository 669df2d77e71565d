"""Reads the size that a compressed frame declares, so that it can be checked before a decoder allocates memory.

The readers in libraries are not safe for this: OpenJPEG's ``get_parameters`` takes 750 MiB for 255 x 255 tiles of one
pixel, and pydicom's ``_get_jpg_parameters`` stops at the first frame header, although a decoder may use a second one.
"""

import struct

from pydicom.uid import (
    UID,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from model.pictures.errors import UnreadablePicture
from model.pictures.jpeg import FRAME_HEADERS
from model.pictures.reading import JPEG_START, jpeg_segments
from service.errors import UnsupportedImage

J2K_START = b"\xff\x4f\xff\x51"  # SOC and SIZ (ITU-T T.800, A.4 and A.5.1)
JP2_CODESTREAM = b"jp2c"
SIZ = struct.Struct(">8IH")  # right and bottom of the image, its offsets, tile size, tile offsets, components
MAX_TILES = 8192  # tiles times components; OpenJPEG takes 4 KiB for each. 3840x2160 in RGB has 6,120 of 64x64
BASELINE, EXTENDED, LOSSLESS, JPEG_LS = 0xC0, 0xC1, 0xC3, 0xF7  # SOF0, 1, 3 (ITU-T T.81, table B.1) and 55 (T.87)
# The coding processes of each transfer syntax (PS3.5, 8.2.1 and 8.2.3): progressive ones are in none.
PROCESSES = {
    JPEGBaseline8Bit: (BASELINE, EXTENDED),
    JPEGExtended12Bit: (BASELINE, EXTENDED),
    JPEGLossless: (LOSSLESS,),
    JPEGLosslessSV1: (LOSSLESS,),
    JPEGLSLossless: (JPEG_LS,),
    JPEGLSNearLossless: (JPEG_LS,),
}


def declared_size(data: bytes, syntax: UID) -> tuple[int, int] | None:
    """Return the declared width and height of a frame; None if it has no valid header of its transfer syntax.

    Raises:
        UnsupportedImage: a JPEG 2000 has more than ``MAX_TILES`` tiles, or a JPEG more scans than the reader allows.

    """
    if syntax in PROCESSES:
        return _jpeg_size(data, PROCESSES[syntax])
    return _jpeg_2000_size(data)


def _jpeg_2000_size(data: bytes) -> tuple[int, int] | None:
    start = 0 if data.startswith(J2K_START) else data.find(JP2_CODESTREAM) + len(JP2_CODESTREAM)
    at = start + len(J2K_START) + 4  # after the fields for length and capabilities
    if data[start : start + len(J2K_START)] != J2K_START or len(data) < at + SIZ.size:
        return None
    right, bottom, left, top, wide, high, tiles_left, tiles_top, components = SIZ.unpack_from(data, at)
    if not wide or not high:
        return None
    tiles = -((tiles_left - right) // wide) * -((tiles_top - bottom) // high)
    if tiles * components > MAX_TILES:
        raise UnsupportedImage(f"the JPEG 2000 has more than {MAX_TILES} tiles times components; use larger tiles")
    return right - left, bottom - top


def _jpeg_size(data: bytes, processes: tuple[int, ...]) -> tuple[int, int] | None:
    if not data.startswith(JPEG_START):
        return None
    size = None
    try:
        for marker, at in jpeg_segments(data):  # all of them, which also limits the number of scans
            if marker in FRAME_HEADERS:
                if size or marker not in processes:
                    return None
                height, width = struct.unpack_from(">2H", data, at + 3)
                size = width, height
    except UnreadablePicture as error:
        raise UnsupportedImage(str(error)) from error
    return size
