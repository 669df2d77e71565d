"""JPEG pictures, and the variants of the standard that are not decoded (ITU-T T.81, table B.1; T.87)."""

import io

from PIL import Image
from PIL.JpegImagePlugin import jpeg_factory

from model.pictures.errors import DAMAGED, UnreadablePicture, damaged, unsupported
from model.pictures.pillow import PillowPicture

START, END = b"\xff\xd8", b"\xff\xd9"
LOSSLESS = 0xC3
PROCESSES = {
    LOSSLESS: "lossless coding", 0xC5: "hierarchical coding", 0xC6: "hierarchical coding", 0xC7: "hierarchical coding",
    0xCB: "lossless arithmetic coding", 0xCD: "hierarchical coding", 0xCE: "hierarchical coding",
    0xCF: "hierarchical coding", 0xF7: "JPEG-LS coding",
}  # fmt: skip
NO_FRAMES = (0xC4, 0xC8, 0xCC)  # between the markers of frames: tables, and a reserved one
SCAN = 0xDA
ADVICE = "send baseline JPEG of 8 bits, or PNG"


class Jpeg(PillowPicture):
    """A JPEG, or the MPO of a phone."""

    def __init__(self, data: bytes) -> None:
        """Read the header.

        Raises:
            UnreadablePicture: it is damaged, or of a variant that is not supported.

        """
        self._data = data
        try:
            picture = jpeg_factory(io.BytesIO(data))
        except DAMAGED as error:
            raise explained(data, error) from error
        # At once: libjpeg cannot wait for more of arithmetic coding.
        picture.decodermaxblock = max(picture.decodermaxblock, len(data))
        super().__init__(picture, picture.info.get("exif"))

    def rgb(self, least_side: int = 0) -> Image.Image:
        """Decode as ``PillowPicture.rgb`` does; lossless coding has no smaller sizes to decode at."""
        try:
            return super().rgb(least_side)
        except UnreadablePicture:
            if not least_side or _frame(self._data)[0] != LOSSLESS:
                raise
            return Jpeg(self._data).rgb()

    def _loaded(self, least_side: int) -> Image.Image:
        picture = super()._loaded(least_side)
        return picture if "jfif" in picture.info else self._with_colours(picture)

    def _with_colours(self, picture: Image.Image) -> Image.Image:
        """Take chroma that pixels share for chroma: libjpeg takes what is lossless and undeclared for RGB."""
        sampling = {(across, down) for _, across, down, _ in getattr(self._picture, "layer", ())}
        undeclared = picture.mode == "RGB" and "adobe" not in picture.info and len(sampling) > 1
        if undeclared and _frame(self._data)[0] == LOSSLESS:
            return Image.merge("YCbCr", picture.split()).convert("RGB")
        return picture

    def _explained(self, error: Exception) -> UnreadablePicture:
        return explained(self._data, error)


def explained(data: bytes, error: Exception) -> UnreadablePicture:
    """Say why a JPEG cannot be read: its variant, or where it is damaged."""
    marker, bits, components = _frame(data)
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


def _frame(data: bytes) -> tuple[int, int, int]:
    """Return marker, bits per sample and number of components of the first frame; zeros without one."""
    at = len(START)
    while at + 10 <= len(data):
        marker = data[at + 1]
        if data[at] != 0xFF or marker == SCAN:
            break
        if (marker in range(0xC0, 0xD0) and marker not in NO_FRAMES) or marker == 0xF7:
            return marker, data[at + 4], data[at + 9]
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4])
    return 0, 0, 0
