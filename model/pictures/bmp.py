"""BMP pictures, also with bit fields that Pillow does not know (Windows GDI, BITMAPV5HEADER)."""

import io
import struct

import numpy as np
from PIL.BmpImagePlugin import BmpImageFile

from model.pictures.errors import DAMAGED, UnreadablePicture, damaged, unsupported
from model.pictures.pillow import PillowFile
from model.pictures.samples import Samples, eight_bits
from model.transforms import Pixels

BIT_FIELDS = (3, 6)  # compressions; 6 also names the alpha
CODED = {1: "run lengths", 2: "run lengths", 4: "JPEG", 5: "PNG"}
ADVICE = "send it uncompressed, or as PNG"


def opened(data: bytes) -> "PillowFile | BitFields":
    """Read the header.

    Raises:
        UnreadablePicture: it is damaged, or of a variant that is not supported.

    """
    compression = int.from_bytes(data[30:34], "little") if int.from_bytes(data[14:18], "little") >= 40 else 0
    if compression in CODED:  # Pillow decodes run lengths in Python, 0.2 us a pixel
        raise unsupported("BMP", CODED[compression], ADVICE)
    try:
        return PillowFile(BmpImageFile(io.BytesIO(data)), exif=None)
    except DAMAGED as error:
        if compression in BIT_FIELDS and "bitfields" in str(error):
            return BitFields(data)
        raise _explained(error) from error


def _explained(error: Exception) -> UnreadablePicture:
    reason = str(error)
    if reason.startswith("Unsupported BMP"):
        return unsupported("BMP", reason.removeprefix("Unsupported BMP "), ADVICE)
    return damaged("BMP", error)


class BitFields:
    """A BMP of 16 or 32 bits a pixel, of which any may be red, green and blue, such as 10 bits each."""

    orientation = 1

    def __init__(self, data: bytes) -> None:
        """Read the header, which Pillow has read before; see ``opened``."""
        self._data = data
        self._offset = int.from_bytes(data[10:14], "little")
        width, self._height, _, self._bits = struct.unpack_from("<iiHH", data, 18)
        self.size = width, abs(self._height)
        if min(self.size) < 1:
            raise damaged("BMP", f"its header declares {width}x{self._height} pixels")
        # After a header of 40 bytes, and inside a longer one, the masks stand at the same place.
        self._masks = struct.unpack_from("<3I", data, 54)
        if self._bits not in (16, 32) or not all(map(_contiguous, self._masks)):
            masks = " ".join(f"{mask:#x}" for mask in self._masks)
            raise unsupported("BMP", f"the bit fields {masks} in {self._bits} bits", ADVICE)

    def decode(self, least_side: int) -> Samples:
        """Decode to RGB of 8 bits."""
        (width, height), size = self.size, self._bits // 8
        row = -(-width * size // 4) * 4
        if self._offset + row * height > len(self._data):
            raise damaged("BMP", f"it has {len(self._data)} bytes, but its pixels need {self._offset + row * height}")
        rows = np.frombuffer(self._data, np.uint8, row * height, self._offset).reshape(height, row)
        pixels = np.ascontiguousarray(rows[:, : width * size]).view(f"<u{size}")
        colours = np.stack([_channel(pixels, mask) for mask in self._masks], axis=-1)
        return Samples(colours if self._height < 0 else colours[::-1], 255)


def _contiguous(mask: int) -> bool:
    return mask > 0 and (shifted := mask >> _shift(mask)) & (shifted + 1) == 0 and shifted < 2**16


def _shift(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


def _channel(pixels: "np.ndarray[tuple[int, ...], np.dtype[np.unsignedinteger]]", mask: int) -> Pixels:
    levels = (pixels & mask) >> _shift(mask)
    return eight_bits(levels.astype(np.uint16), mask >> _shift(mask))
