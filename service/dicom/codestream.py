"""What a compressed frame declares of its own size, before a decoder may believe it."""

import struct

J2K_START = b"\xff\x4f\xff\x51"  # SOC and SIZ (ITU-T T.800, A.4 and A.5.1)
JP2_CODESTREAM = b"jp2c"
JPEG_START = b"\xff\xd8"
JPEG_LS_FRAME = 0xF7  # SOF55 (ITU-T T.87)
NO_FRAMES = (0xC4, 0xC8, 0xCC)  # DHT, JPG and DAC lie between the SOFs (ITU-T T.81, table B.1)


def declared_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height of a JPEG, JPEG-LS or JPEG 2000 codestream; None where it has no such header."""
    if data.startswith(JPEG_START):
        return _jpeg_size(data)
    start = 0 if data.startswith(J2K_START) else data.find(JP2_CODESTREAM) + len(JP2_CODESTREAM)
    if data[start : start + len(J2K_START)] != J2K_START or len(data) < start + 24:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
    return right - left, bottom - top


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = len(JPEG_START)
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker == JPEG_LS_FRAME or (0xC0 <= marker <= 0xCF and marker not in NO_FRAMES):
            height, width = struct.unpack_from(">2H", data, at + 5)
            return width, height
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
