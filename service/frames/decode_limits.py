"""Limits on the work of decoding a picture, by its markers and chunks: a thread that decodes cannot be stopped.

JPEG and JPEG-LS: ITU-T T.81, B.1.1 (markers, segments, fill bytes) and T.87; PNG: its specification, 5.2 and 5.3.
"""

import os
import re
from collections import deque
from collections.abc import Iterator

from service.errors import UndecodableImage, UnsupportedImage

JPEG_START = b"\xff\xd8"
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_OVERHEAD = 12  # bytes of a chunk's length, type and checksum
# A scan is a pass over all pixels, even if it has no bytes. libjpeg writes 10, or 18 for four channels.
MAX_SCANS = 32
os.environ.setdefault("LIBTIFF_JPEG_MAX_ALLOWED_SCAN_NUMBER", str(MAX_SCANS))  # for a JPEG inside a TIFF
# Pillow takes a step in Python for each segment, chunk and byte between the segments of a JPEG's header: so many steps
# take a quarter of a second. libpng writes a chunk for every 8 KiB.
MAX_STEPS = 2**15

MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")  # skips stuffed zeros, restart markers and fill bytes
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
# In the standard, JPG and JPG0 to JPG13 have parameters, but Pillow searches them for markers.
WITHOUT_PARAMETERS = frozenset((0xC8, 0xD8, END_OF_IMAGE, *range(0xF0, 0xFE)))


def check(data: bytes) -> None:
    """Refuse a JPEG or PNG that takes far more work than others of its size; nothing is decoded.

    Raises:
        UndecodableImage: it has more than ``MAX_SCANS`` scans, or than ``MAX_STEPS`` segments, chunks and bytes
            between them.

    """
    try:
        if data.startswith(JPEG_START):
            deque(jpeg_segments(data), maxlen=0)
        elif data.startswith(PNG_START):
            _check_png(data)
    except UnsupportedImage as error:  # a frame of DICOM is refused as that; a picture of a known format is not
        raise UndecodableImage(error.detail) from error


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the second byte of each marker and the offset of its parameters, up to the end of the image or data.

    Raises:
        UnsupportedImage: it has more scans or steps than ``check`` allows.

    """
    at = steps = scans = 0
    while at < len(data):
        found = MARKER.search(data, at)
        start, behind = found.span() if found else (len(data), len(data))
        steps += 1 if scans else 1 + start - at  # after the first scan, the bytes between are coded pixels
        if steps > MAX_STEPS:
            raise _too_many_steps("JPEG", "segments, or bytes between them")
        if not found:
            return
        marker = data[behind - 1]
        scans += marker == START_OF_SCAN
        if scans > MAX_SCANS:
            raise UnsupportedImage(f"the JPEG has more than {MAX_SCANS} scans; save it as baseline JPEG or PNG")
        yield marker, behind
        if marker == END_OF_IMAGE and scans:
            return
        at = behind if marker in WITHOUT_PARAMETERS else behind + max(2, int.from_bytes(data[behind : behind + 2]))


def _check_png(data: bytes) -> None:
    at, chunks = len(PNG_START), 0
    while at < len(data) and data[at + 4 : at + 8] != b"IEND":
        chunks += 1
        if chunks > MAX_STEPS:
            raise _too_many_steps("PNG", "chunks")
        at += PNG_OVERHEAD + int.from_bytes(data[at : at + 4])


def _too_many_steps(kind: str, parts: str) -> UnsupportedImage:
    return UnsupportedImage(f"the {kind} has more than {MAX_STEPS} {parts}; save it again without metadata")
