"""Pictures that Pillow decodes: JPEG, PNG, WebP and BMP, upright by their EXIF orientation."""

from typing import Any

import numpy as np
from PIL import ExifTags, Image
from PIL.Image import Transpose

from model.pictures.errors import DAMAGED, UnreadablePicture, damaged, unsupported
from model.pictures.samples import Samples

TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")


class PillowPicture:
    """A picture whose header Pillow has read; nothing is decoded yet."""

    def __init__(self, picture: Image.Image, exif: bytes | None) -> None:
        """Refuse more than one picture.

        Args:
            picture: opened, not loaded.
            exif: the file's EXIF block. XMP also has an orientation, which browsers do not apply.

        Raises:
            UnreadablePicture: the file holds more than one picture.

        """
        # An MPO is a phone's JPEG with additions.
        if picture.format != "MPO" and getattr(picture, "is_animated", False):
            raise unsupported(f"{picture.format} file", "more than one picture", "send them one by one")
        self.format = str(picture.format)
        self._picture = picture
        self._turn = TURNS.get(_orientation(exif))
        turned = self._turn is not None and self._turn >= Transpose.ROTATE_90 and self._turn != Transpose.ROTATE_180
        self.size = picture.size[::-1] if turned else picture.size

    def rgb(self, least_side: int = 0) -> Image.Image:
        """Decode to RGB of 8 bits, upright and over black.

        Args:
            least_side: if above 0, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, as long as both sides keep
                this many pixels. It is faster, since the decoder skips high frequencies.

        Raises:
            UnreadablePicture: the file is damaged.

        """
        try:
            return rgb(self._loaded(least_side))
        except DAMAGED as error:
            raise self._explained(error) from error

    def samples(self) -> Samples:
        """Decode to grey levels, RGB or palette indices, upright."""
        try:
            return samples(self._loaded(0))
        except DAMAGED as error:
            raise self._explained(error) from error

    def _loaded(self, least_side: int) -> Image.Image:
        if least_side:
            self._picture.draft(None, (least_side, least_side))  # affects JPEGs only
        self._picture.load()
        return self._picture if self._turn is None else self._picture.transpose(self._turn)

    def _explained(self, error: Exception) -> UnreadablePicture:
        return damaged(self.format, error)


def rgb(picture: Image.Image) -> Image.Image:
    """Return a loaded picture as RGB of 8 bits, over black."""
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode in SIXTEEN_BITS:  # Pillow would clip at 255 instead of scaling
        return samples(picture).rgb()
    if picture.has_transparency_data:
        layered = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, (0, 0, 0, 255)), layered).convert("RGB")
    return picture.convert("RGB")


def samples(picture: Image.Image) -> Samples:
    """Return the pixels of a loaded picture as they are stored, over black."""
    if picture.mode in SIXTEEN_BITS:
        levels: Any = np.asarray(picture).astype(np.uint16)
        if (hidden := picture.info.get("transparency")) is not None:
            levels[levels == hidden] = 0
        return Samples(levels, 65535)
    if not picture.has_transparency_data:
        if picture.mode == "1":
            return Samples(np.asarray(picture).astype(np.uint8), 1)
        if picture.mode == "L":
            return Samples(np.asarray(picture), 255)
        if picture.mode == "P":
            colours = np.zeros((256, 3), np.uint8)
            found = np.array(picture.getpalette("RGB") or [], np.uint8).reshape(-1, 3)[:256]
            colours[: len(found)] = found
            return Samples(np.asarray(picture), 255, colours)
    return Samples(np.asarray(rgb(picture)), 255)


def _orientation(exif: bytes | None) -> int:
    if not exif:
        return 1
    block = Image.Exif()
    try:
        block.load(exif)
        found = block.get(ExifTags.Base.Orientation, 1)
    except DAMAGED:  # the pixels may be sound
        return 1
    return found if isinstance(found, int) else 1
