"""Recognises DICOM by its contents: media store objects without ``.dcm``, a media type, or even a preamble."""

import struct

PREAMBLE, MAGIC = 128, b"DICM"  # PS3.10, 7.1
FIRST_GROUPS = (2, 8)  # what a file without a preamble begins with: its meta information, or the object itself
EXPLICIT = (b"UL", b"UI", b"OB", b"CS", b"SH", b"DA", b"TM", b"ST", b"LO", b"SQ")  # of the first elements
LONGEST = 1024  # bytes; group lengths, identifiers and character sets are short
NEEDED_BYTES = PREAMBLE + len(MAGIC)


def is_object(start: bytes) -> bool:
    """Say whether a file is a DICOM object, by its first ``NEEDED_BYTES`` or more."""
    start = start[:NEEDED_BYTES]
    if start[PREAMBLE:NEEDED_BYTES] == MAGIC:
        return True
    if len(start) < 8:
        return False
    group, element = struct.unpack_from("<HH", start)
    if group not in FIRST_GROUPS or element > 0x20:
        return False
    if start[4:6].isalpha():
        return start[4:6] in EXPLICIT
    length = int.from_bytes(start[4:8], "little")
    return length % 2 == 0 and length <= LONGEST
