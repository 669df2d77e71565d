"""Variants of JPEG: which are not decoded, and what colours a lossless one has (ITU-T T.81, table B.1; T.87)."""

from typing import NamedTuple

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from model.pictures.errors import UnreadablePicture, damaged, unsupported

FRAME_BYTES = 8  # of a frame header up to the number of components
FRAME_HEADERS = {0xF7, *range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # DHT, JPG and DAC lie between them
LOSSLESS = 0xC3
ARITHMETIC = (0xC9, 0xCA)
PROCESSES = {
    LOSSLESS: "lossless coding", 0xC5: "hierarchical coding", 0xC6: "hierarchical coding", 0xC7: "hierarchical coding",
    0xCB: "lossless arithmetic coding", 0xCD: "hierarchical coding", 0xCE: "hierarchical coding",
    0xCF: "hierarchical coding", 0xF7: "JPEG-LS coding",
}  # fmt: skip
ADVICE = "send baseline JPEG of 8 bits, or PNG"
END = b"\xff\xd9"


class Frame(NamedTuple):
    """What a frame header says; zeros if there is none."""

    marker: int  # its second byte
    bits: int  # of a sample
    components: int


NO_FRAME = Frame(0, 0, 0)


def explained(data: bytes, frame: Frame, error: Exception) -> UnreadablePicture:
    """Say why a JPEG cannot be read: its variant, or where it is damaged."""
    marker, bits, components = frame
    if not marker:
        return damaged("JPEG", f"no frame header in {len(data)} bytes")
    if bits != 8 and (marker in PROCESSES or bits in range(2, 17)):
        return unsupported("JPEG", f"{bits} bits per sample", ADVICE)
    if marker != LOSSLESS and marker in PROCESSES:
        return unsupported("JPEG", PROCESSES[marker], ADVICE)
    if components not in (1, 3, 4):
        return unsupported("JPEG", f"{components} components", ADVICE)
    if END not in data[-1024:]:
        return damaged("JPEG", f"it ends after {len(data)} bytes without an end of image")
    return damaged("JPEG", error)


def with_colours(picture: JpegImageFile) -> Image.Image:
    """Return a lossless JPEG, loaded as RGB, in the colours that it stores.

    The standard leaves them open. libjpeg-turbo goes by the markers JFIF and Adobe, and takes three components without
    them for RGB. But chroma that pixels share is chroma, and FFmpeg says ``CS=ITU601`` in a comment of what is YCbCr.
    """
    declared = picture.mode != "RGB" or "jfif" in picture.info or "adobe" in picture.info
    shared = len({(across, down) for _, across, down, _ in picture.layer}) > 1
    if declared or not (shared or picture.info.get("comment") == b"CS=ITU601"):
        return picture
    return Image.merge("YCbCr", picture.split()).convert("RGB")
