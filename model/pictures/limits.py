"""Limits on the work of decoding a picture, by its markers and chunks: a thread that decodes cannot be stopped."""

import os

from model.pictures.errors import UnreadablePicture

# A scan is a pass over all pixels, even if it has no bytes. libjpeg writes 10, or 18 for four channels.
MAX_SCANS = 32
os.environ.setdefault("LIBTIFF_JPEG_MAX_ALLOWED_SCAN_NUMBER", str(MAX_SCANS))  # for a JPEG inside a TIFF
# Pillow takes a step in Python for each segment, chunk and byte between the segments of a JPEG's header: so many steps
# take a quarter of a second. libpng writes a chunk for every 8 KiB.
MAX_STEPS = 2**15
# The largest side of a JPEG and of a DICOM image. libpng writes no more than 1,000,000, and resizing takes 16 bytes for
# each pixel of a row, and without resize.c 2,048 for each of a column.
MAX_SIDE = 2**16 - 1


def too_long(width: int, height: int) -> UnreadablePicture:
    """Return the error for a picture with more than ``MAX_SIDE`` pixels on a side."""
    reason = f"the picture has {width}x{height} pixels, and more than {MAX_SIDE} on a side are not supported"
    return UnreadablePicture(reason, "send a part of it, or a smaller one")


def too_many_scans() -> UnreadablePicture:
    """Return the error for a JPEG of more than ``MAX_SCANS`` scans."""
    return UnreadablePicture(f"the JPEG has more than {MAX_SCANS} scans", "save it as baseline JPEG or PNG")


def too_many_steps(kind: str, parts: str, advice: str = "save it again without metadata") -> UnreadablePicture:
    """Return the error for a file of more than ``MAX_STEPS`` parts."""
    return UnreadablePicture(f"the {kind} has more than {MAX_STEPS} {parts}", advice)
