"""TIFF pictures: what their tags say decides how samples become grey levels or colours (TIFF 6.0)."""

import io

import cv2
import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from model.pictures import pillow, tiff_samples
from model.pictures import tiff_directory as tags
from model.pictures.errors import DAMAGED, damaged, unsupported
from model.pictures.samples import SWAPPED, Levels, Samples, eight_bits, over_black
from model.pictures.tiff_directory import Directory
from model.pictures.tiff_samples import Stored
from model.transforms import Pixels

LUMA = (0.299, 0.587, 0.114)  # YCbCrCoefficients, by default those of ITU-R BT.601
FULL_RANGE = (0, 255, 128, 255, 128, 255)  # ReferenceBlackWhite
WIDE = 65535  # white of what is stored signed or as floats


class Tiff:
    """A TIFF whose directory was read; nothing is decoded yet."""

    def __init__(self, data: bytes) -> None:
        """Read the directory.

        Raises:
            UnreadablePicture: it is damaged, or the pixels are of a kind that is not supported.

        """
        self._data = data
        self._directory = directory = Directory.of(data)
        self.size, self.orientation = directory.size, directory.orientation
        if not directory.bytewise:  # Pillow turns it as it decodes
            self.size = self.size[::-1] if self.orientation in SWAPPED else self.size
            self.orientation = 1

    def decode(self, least_side: int) -> Image.Image | Samples:
        """Decode as stored, at full size.

        Raises:
            UnreadablePicture: the file is damaged, or the range of its samples is unknown.

        """
        directory = self._directory
        if not directory.bytewise:
            return self._coded()
        stored, white = _unsigned(tiff_samples.read(self._data, directory), directory)
        if directory.photometric == tags.PALETTE:
            return _indexed(stored, white, directory)
        levels, white = _colours(stored, white, directory)
        at = tags.COLOURS[directory.photometric]
        if at < directory.used <= stored.shape[2]:
            levels = over_black(levels, stored[..., at], white)
        return Samples(levels, white)

    def _coded(self) -> Samples:
        """Let Pillow decode JPEG and fax; they say themselves what their pixels are."""
        try:
            picture = TiffImageFile(io.BytesIO(self._data))
            picture.info.pop("xmp", None)  # Pillow would turn the picture by it
            picture.load()
            return pillow.samples(picture)
        except DAMAGED as error:
            raise damaged("TIFF", error) from error


def _unsigned(stored: Stored, directory: Directory) -> tuple[Levels, int]:
    """Map samples (H, W, S) to unsigned levels of 8 or 16 bits, and return the level of white."""
    if directory.format == tags.UNSIGNED and directory.bits <= 16:
        return stored, 2**directory.bits - 1
    least, most = _range(directory)
    if not least < most:
        kind = {tags.SIGNED: "signed", tags.FLOAT: "float"}.get(directory.format, "32-bit")
        raise unsupported(
            "TIFF",
            f"{kind} samples whose range is unknown",
            "write SMinSampleValue and SMaxSampleValue (tags 340 and 341), or send 8 or 16 bits",
        )
    scaled = (stored.astype(np.float64) - least) * (WIDE / (most - least))
    return np.rint(np.clip(np.nan_to_num(scaled), 0, WIDE)).astype(np.uint16), WIDE


def _range(directory: Directory) -> tuple[float, float]:
    """Return the least and greatest sample that the tags name; 0 and 0 if they name none."""
    for least, most in ((tags.LEAST_TYPED, tags.MOST_TYPED), (tags.LEAST, tags.MOST)):
        low, high = directory.numbers(least), directory.numbers(most)
        if high and (low or directory.format == tags.UNSIGNED):
            return min(low, default=0), max(high)
    return 0, 0


def _colours(stored: Levels, white: int, directory: Directory) -> tuple[Levels, int]:
    """Return grey levels (H, W) or RGB (H, W, 3), and the level of white."""
    match directory.photometric:
        case tags.MIN_IS_WHITE:
            return white - stored[..., 0], white
        case tags.MIN_IS_BLACK:
            return stored[..., 0], white
        case tags.RGB:
            return stored[..., :3], white
        case tags.SEPARATED:
            return _from_inks(eight_bits(stored, white), directory), 255
        case tags.YCBCR:
            return _from_luma(eight_bits(stored, white), directory), 255
        case _:
            return _from_lab(stored, white), 255


def _indexed(stored: Levels, white: int, directory: Directory) -> Samples:
    """Return indices and their palette, or colours if some have to be blended."""
    palette, indices = _palette(directory), stored[..., 0]
    alpha = stored[..., 1] if 1 < directory.used <= stored.shape[2] else None
    if alpha is None or (alpha == white).all():
        return Samples(indices, white, palette)
    return Samples(over_black(palette[indices], eight_bits(alpha, white), 255), 255)


def _palette(directory: Directory) -> Pixels:
    """Return the ColorMap as RGB (N, 3); its levels should be of 16 bits, but some writers store 8."""
    entries = np.array(directory.numbers(tags.COLOR_MAP), np.int64)
    if len(entries) != 3 * 2**directory.bits or entries.min() < 0 or entries.max() > WIDE:
        raise damaged("TIFF", f"its ColorMap has {len(entries)} entries for {directory.bits} bits")
    return eight_bits(entries.reshape(3, -1).T, 255 if entries.max() <= 255 else WIDE)


def _from_inks(inks: Pixels, directory: Directory) -> Pixels:
    """Map CMYK to RGB without a colour profile (TIFF 6.0, section 16)."""
    if directory.number(tags.INK_SET, 1) != 1:
        raise unsupported("TIFF", "a set of inks other than CMYK", "send RGB")
    paper = 255 - inks[..., :4].astype(np.uint16)
    return ((paper[..., :3] * paper[..., 3:] + 127) // 255).astype(np.uint8)


def _from_luma(stored: Pixels, directory: Directory) -> Pixels:
    """Map YCbCr to RGB (TIFF 6.0, section 21)."""
    reference = np.array(directory.numbers(tags.REFERENCE, FULL_RANGE))
    luma = np.array(directory.numbers(tags.COEFFICIENTS, LUMA))
    black, white = reference[::2], reference[1::2]
    if reference.shape != (6,) or luma.shape != (3,) or not (white > black).all() or not (luma > 0).all():
        raise damaged("TIFF", "its YCbCrCoefficients or ReferenceBlackWhite")
    scale = np.array([255, 127, 127]) / (white - black)
    y, cb, cr = np.moveaxis((stored[..., :3] - black) * scale, -1, 0).astype(np.float32)
    red, blue = y + (2 - 2 * luma[0]) * cr, y + (2 - 2 * luma[2]) * cb
    green = (y - luma[0] * red - luma[2] * blue) / luma[1]
    levels: Pixels = np.rint(np.clip(np.stack([red, green, blue], axis=-1), 0, 255)).astype(np.uint8)
    return levels


def _from_lab(stored: Levels, white: int) -> Pixels:
    """Map CIELab of 8 bits, whose a* and b* are signed, to RGB (TIFF 6.0, section 23)."""
    if white != 255:
        raise unsupported("TIFF", "CIELab of more than 8 bits", "send RGB")
    shifted: Pixels = np.bitwise_xor(stored[..., :3], np.array([0, 128, 128], np.uint8))
    return np.asarray(cv2.cvtColor(shifted, cv2.COLOR_Lab2RGB), np.uint8)
