"""Pictures that Pillow decodes, and what their pixels mean by its modes."""

from typing import Any

import numpy as np
from PIL import ExifTags, Image
from PIL.Image import Transpose

from model.pictures.errors import DAMAGED, damaged, unsupported
from model.pictures.samples import Samples

TURNS = {  # of Image.transpose, by orientation
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")


class PillowFile:
    """A PNG, WebP or BMP whose header Pillow has read."""

    def __init__(self, picture: Image.Image, exif: bytes | None) -> None:
        """Refuse more than one picture.

        Args:
            picture: opened, not loaded.
            exif: the file's EXIF block. XMP also has an orientation, which browsers do not apply.

        Raises:
            UnreadablePicture: the file holds more than one picture.

        """
        if getattr(picture, "is_animated", False):
            raise unsupported(f"{picture.format} file", "more than one picture", "send them one by one")
        self.size = picture.size
        self.orientation = orientation(exif) if exif else 1
        self._picture = picture

    def decode(self, least_side: int) -> Image.Image:
        """Decode as stored, at full size."""
        try:
            return self._loaded()
        except DAMAGED as error:
            raise damaged(str(self._picture.format), error) from error

    def _loaded(self) -> Image.Image:
        self._picture.load()
        return self._picture


def rgb(picture: Image.Image) -> Image.Image:
    """Return a loaded picture as RGB of 8 bits, over black."""
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


def orientation(exif: bytes) -> int:
    """Return the orientation that a block of EXIF states; 1, upright, if it states none."""
    block = Image.Exif()
    try:
        block.load(exif)
        found = block.get(ExifTags.Base.Orientation, 1)
    except DAMAGED:  # the pixels may be sound
        return 1
    return found if isinstance(found, int) else 1
