"""PNG pictures: checksums and transparent levels (PNG specification, third edition, sections 5.3, 11.3.1 and 13.3)."""

import io
import zlib

import cv2
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from model.pictures.errors import DAMAGED, damaged
from model.pictures.limits import MAX_STEPS, too_many_steps
from model.pictures.pillow import PillowFile

SIGNATURE = b"\x89PNG\r\n\x1a\n"
OVERHEAD = 12  # bytes of a chunk's length, type and checksum
READ_AS_STORED = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
DEPTH = 24  # where the header says how many bits a sample has
ANCILLARY = 0x20  # bit of a chunk's first letter
UNUSED = (b"iCCP", b"iTXt", b"zTXt")  # compressed, and of no use here: Pillow refuses a picture if they unpack to much


class Png(PillowFile):
    """A PNG. A wrong checksum of an ancillary chunk costs that chunk, as in libpng; any other is damage."""

    def __init__(self, data: bytes) -> None:
        """Read all chunks but the pixels.

        Raises:
            UnreadablePicture: the file is damaged, or holds more than one picture.

        """
        if not data.startswith(SIGNATURE):
            raise damaged("PNG", "its first 8 bytes are not a PNG's; transfer it as binary, not as text")
        if data[8:16] == b"\0\0\0\rIHDR" and 0 in (size := (_number(data, 16), _number(data, 20))):
            raise damaged("PNG", f"its header declares {size[0]}x{size[1]} pixels")
        dropped, exif = _verified(data)
        self._data = _without(data, dropped) if dropped else data
        try:
            picture = PngImageFile(io.BytesIO(self._data))
            super().__init__(picture, exif)
        except DAMAGED as error:
            raise damaged("PNG", error) from error

    def _loaded(self) -> Image.Image:
        picture = super()._loaded()
        if picture.mode == "P" and picture.palette is None:
            raise damaged("PNG", "it has no palette")
        needs_alpha = "transparency" in picture.info and picture.mode in ("L", "RGB")
        return self._with_alpha(picture) if needs_alpha else picture

    def _with_alpha(self, picture: Image.Image) -> Image.Image:
        """Mend the transparent level where Pillow would miss it: it counts in the bits of the file."""
        depth = self._data[DEPTH]
        if picture.mode == "L":
            most = 2**depth - 1
            picture.info["transparency"] = (picture.info["transparency"] & most) * 255 // most
        elif picture.mode == "RGB" and depth == 16:
            hidden = np.array(picture.info.pop("transparency")[::-1], np.uint16)
            stored = cv2.imdecode(np.frombuffer(self._data, np.uint8), READ_AS_STORED)
            alpha = (np.asarray(stored) != hidden).any(axis=2)
            picture.putalpha(Image.fromarray(alpha.astype(np.uint8) * np.uint8(255)))
        return picture


def _verified(data: bytes) -> tuple[list[tuple[int, int]], bytes | None]:
    """Return begin and end of the chunks that are left out, and the EXIF block."""
    view, at = memoryview(data), len(SIGNATURE)
    dropped: list[tuple[int, int]] = []
    exif, chunks = None, 0
    while at + OVERHEAD <= len(data):
        chunks += 1
        if chunks > MAX_STEPS:
            raise too_many_steps("PNG", "chunks")
        end = at + OVERHEAD + _number(data, at)
        if end > len(data):
            break  # decoding says how much is missing
        kind = data[at + 4 : at + 8]
        if zlib.crc32(view[at + 4 : end - 4]) != _number(data, end - 4):
            if not kind[0] & ANCILLARY:
                raise damaged("PNG", f"the checksum of the chunk {kind.decode('latin-1')} at byte {at} is wrong")
            dropped.append((at, end))
        elif kind in UNUSED:
            dropped.append((at, end))
        elif kind == b"eXIf":
            exif = data[at + 8 : end - 4]
        elif kind == b"IEND":
            break
        at = end
    return dropped, exif


def _without(data: bytes, chunks: list[tuple[int, int]]) -> bytes:
    begins = (0, *(end for _, end in chunks))
    ends = (*(begin for begin, _ in chunks), len(data))
    return b"".join(data[begin:end] for begin, end in zip(begins, ends, strict=True))


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4])
