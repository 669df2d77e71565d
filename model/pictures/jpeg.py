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


def lossless(picture: JpegImageFile) -> Image.Image:
    """Decode a lossless JPEG, in the colours that it stores.

    The standard leaves them open. libjpeg-turbo 3 goes by the markers JFIF and Adobe and by the ids of the components;
    where they say nothing, it takes what is lossless for RGB, as DICOM and scanners store it (``jdapimin.c``). FFmpeg
    takes the same file for YCbCr, and writes such. Chroma that pixels share can only be chroma, so that is converted;
    libjpeg-turbo itself converts nothing that is lossless (``jdcolor.c``).
    """
    if len(picture.layer) == 3 and _declares_luma(picture):
        picture.draft("YCbCr", picture.size)  # no conversion
    picture.load()
    shared = len({(across, down) for _, across, down, _ in picture.layer}) > 1
    if picture.mode == "RGB" and shared:
        return Image.merge("YCbCr", picture.split()).convert("RGB")
    return picture.convert("RGB") if picture.mode == "YCbCr" else picture


def _declares_luma(picture: JpegImageFile) -> bool:
    if "jfif" in picture.info:
        return True
    if "adobe" in picture.info:
        return picture.info.get("adobe_transform") != 0
    return [component for component, *_ in picture.layer] not in ([1, 2, 3], [*b"RGB"])
