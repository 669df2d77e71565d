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
from service.dicom import jpeg_2000
from service.errors import UnsupportedImage

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
        UnsupportedImage: a JPEG 2000 exceeds a limit of ``jpeg_2000``, or a JPEG has more scans than are allowed.

    """
    if syntax in PROCESSES:
        return _jpeg_size(data, PROCESSES[syntax])
    return jpeg_2000.size(data)


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
