"""Pixels as a file stores them, before they become RGB of 8 bits."""

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from model.transforms import Pixels

SWAPPED = (5, 6, 7, 8)  # orientations that swap width and height
Levels = npt.NDArray[Any]  # unsigned: uint8 or uint16


@dataclass(frozen=True)
class Samples:
    """Grey levels (H, W), colours (H, W, 3), or indices (H, W) into a palette; uint8 or uint16, over black.

    ``white`` is the level of white: 255 for 8 bits, 4095 for 12.
    """

    levels: Levels
    white: int
    palette: Pixels | None = None  # (N, 3), RGB

    def eight_bits(self) -> Pixels:
        """Return grey levels (H, W) or RGB (H, W, 3), uint8."""
        if self.palette is not None:
            return self.palette[self.levels]
        return eight_bits(self.levels, self.white)

    def rgb(self) -> Image.Image:
        """Return the picture as RGB of 8 bits."""
        return Image.fromarray(np.ascontiguousarray(self.eight_bits())).convert("RGB")

    def upright(self, orientation: int) -> "Samples":
        """Turn them as a person sees them (CIPA DC-008, Orientation; TIFF 6.0, section 8)."""
        levels = self.levels.swapaxes(0, 1) if orientation in SWAPPED else self.levels
        if orientation in (3, 4, 7, 8):
            levels = levels[::-1]
        if orientation in (2, 3, 6, 7):
            levels = levels[:, ::-1]
        return replace(self, levels=levels)


class Stored(Protocol):
    """A picture of one format whose header was read."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as stored."""

    @property
    def orientation(self) -> int:
        """How it is turned; 1 is upright (CIPA DC-008, Orientation)."""

    def decode(self, least_side: int) -> Image.Image | Samples:
        """Decode as stored, neither turned nor reduced, unless it is a JPEG: see ``Opened.rgb``.

        Raises:
            UnreadablePicture: the file is damaged, or the range of its samples is unknown.

        """


def eight_bits(levels: Levels, white: int) -> Pixels:
    """Scale levels 0 to ``white`` of any shape, uint8 or uint16, to 0 to 255, rounded."""
    if white == 255:
        return levels.astype(np.uint8, copy=False)
    table = (np.arange(white + 1) * 255 + white // 2) // white
    return table.astype(np.uint8)[levels]


def over_black(levels: Levels, alpha: Levels, white: int) -> Levels:
    """Blend levels (H, W) or (H, W, C) with black by an alpha (H, W) of the same range."""
    weight = alpha.astype(np.uint32)
    blended = (levels * (weight if levels.ndim == 2 else weight[..., None]) + white // 2) // white
    return blended.astype(levels.dtype)
