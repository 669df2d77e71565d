"""What a JPEG 2000 codestream declares (ITU-T T.800, annex A), and how much that makes a decoder allocate.

OpenJPEG allocates for every tile, precinct and code block before it decodes: 92 MiB for a 2 KB file of 1024x1024
pixels with code blocks of 4x4.
"""

import itertools
import struct
from collections.abc import Iterator
from typing import NamedTuple

from service.errors import UnsupportedImage

START = b"\xff\x4f\xff\x51"  # SOC and SIZ
BOX = b"jp2c"  # of JP2, with the codestream
SIZ = struct.Struct(">8IH")  # right and bottom of the image, its offsets, tile size, tile offsets, components
FIRST, COD, COC, SOT, SOD = 0xFF00, 0xFF52, 0xFF53, 0xFF90, 0xFF93  # markers
SOT_BYTES, TILE_LENGTH = 12, 6  # of the marker and its segment; place of Psot, the bytes of the tile-part, in it
MANY_COMPONENTS = 257  # from so many on, their indices take two bytes
LARGEST = 15  # exponent of a precinct that takes all
MAX_TILES = 8192  # tiles times components; OpenJPEG takes 4 KiB for each. 3840x2160 in RGB has 6,120 of 64x64
MAX_BLOCKS = 2**18  # code blocks and precincts; OpenJPEG takes 500 bytes for each. 50 megapixels have 147,000 of 32x32
MAX_TILE_PARTS = 2**15
MAX_LEVELS = 32  # table A.15
MAX_SEGMENTS = 2**12  # of a header; a comment or a style each
ADVICE = "encode it with larger ones"


class Style(NamedTuple):
    """How a component is coded (SPcod and SPcoc, table A.15)."""

    levels: int  # of decomposition
    block: tuple[int, int]  # exponents of width and height of a code block
    precincts: bytes  # exponents for each resolution, width in the lower half; empty: one takes all


def size(data: bytes) -> tuple[int, int] | None:
    """Return the declared width and height of a codestream or JP2; None if it has no valid header.

    Raises:
        UnsupportedImage: it declares more than ``MAX_TILES`` or ``MAX_BLOCKS``, or styles of single tiles.

    """
    start = 0 if data.startswith(START) else data.find(BOX) + len(BOX)
    at = start + len(START) + 4  # after the fields for length and capabilities
    if data[start : start + len(START)] != START or len(data) < at + SIZ.size:
        return None
    right, bottom, left, top, wide, high, tiles_left, tiles_top, components = SIZ.unpack_from(data, at)
    if not wide or not high or right <= left or bottom <= top:
        return None
    tiles = -((tiles_left - right) // wide) * -((tiles_top - bottom) // high)
    if tiles * components > MAX_TILES:
        raise UnsupportedImage(f"the JPEG 2000 has more than {MAX_TILES} tiles times components; {ADVICE}")
    width, height = right - left, bottom - top
    tile = min(wide, width), min(high, height)
    try:
        found = _styles(data, start + 4 + struct.unpack_from(">H", data, start + 4)[0], components)
        styles = list(itertools.islice(found, components + 2))
    except (struct.error, IndexError):
        return None
    if len(styles) > components + 1 or any(style.levels > MAX_LEVELS for style in styles):
        return None  # T.800, A.6.1 and A.6.2: one style for all, and one for each component
    if any(_blocks(style, *tile) * tiles * components > MAX_BLOCKS for style in styles):
        raise UnsupportedImage(f"the JPEG 2000 has more than {MAX_BLOCKS} code blocks and precincts; {ADVICE}")
    return width, height


def has_transform(data: bytes) -> bool:
    """Tell whether the components are transformed together (MCT of table A.17); OpenJPEG then gives RGB (annex G).

    Raises:
        struct.error, IndexError: there is no complete header; ``size`` returns None then.

    """
    start = 0 if data.startswith(START) else data.find(BOX) + len(BOX)
    segments = _segments(data, start + 4 + struct.unpack_from(">H", data, start + 4)[0])
    return any(marker == COD and content[4] == 1 for marker, _, content in segments)


def _styles(data: bytes, at: int, components: int) -> Iterator[Style]:
    """Yield the styles of the main header, which begins at ``at`` behind SIZ; tile-parts must have none."""
    for marker, place, content in _segments(data, at):
        if marker == COD:
            yield _style(content[5:], precincts=content[0] & 1)
        elif marker == COC:
            index = 1 if components < MANY_COMPONENTS else 2
            yield _style(content[index + 1 :], precincts=content[index] & 1)
        elif marker == SOT:
            _check_tile_parts(data, place)


def _check_tile_parts(data: bytes, at: int) -> None:
    for _ in range(MAX_TILE_PARTS):
        if any(marker in (COD, COC) for marker, _, _ in _segments(data, at + SOT_BYTES)):
            raise UnsupportedImage("the JPEG 2000 codes tiles in styles of their own; encode it with one style")
        (length,) = struct.unpack_from(">I", data, at + TILE_LENGTH)
        at += max(length, SOT_BYTES)
        if not length or data[at : at + 2] != SOT.to_bytes(2, "big"):
            return
    raise UnsupportedImage(f"the JPEG 2000 has more than {MAX_TILE_PARTS} tile-parts; encode it with fewer")


def _segments(data: bytes, at: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield the markers of a header, their places, and what their segments hold, up to and with SOT, or up to SOD."""
    for _ in range(MAX_SEGMENTS):
        (marker,) = struct.unpack_from(">H", data, at)
        if marker == SOD or marker < FIRST:
            return
        (length,) = struct.unpack_from(">H", data, at + 2)
        yield marker, at, data[at + 4 : at + 2 + length]
        if marker == SOT:
            return
        at += 2 + length
    raise UnsupportedImage(f"a header of the JPEG 2000 has more than {MAX_SEGMENTS} segments; encode it again")


def _style(content: bytes, *, precincts: int) -> Style:
    levels = content[0]
    block = (content[1] & 15) + 2, (content[2] & 15) + 2
    return Style(levels, block, content[5 : 6 + levels] if precincts else b"")


def _blocks(style: Style, width: int, height: int) -> int:
    """Return how many code blocks and precincts a component has in one tile (B.6 and B.7)."""
    count = 0
    for resolution in range(style.levels + 1):
        across, down = (_ceil(side, style.levels - resolution) for side in (width, height))
        exponents = style.precincts[resolution] if style.precincts else LARGEST | LARGEST << 4
        precinct = exponents & 15, exponents >> 4
        halved = int(resolution > 0)  # the three bands of a resolution have half its size
        block = [min(own, max(0, most - halved)) for own, most in zip(style.block, precinct, strict=True)]
        in_band = _ceil(_ceil(across, halved), block[0]) * _ceil(_ceil(down, halved), block[1])
        count += _ceil(across, precinct[0]) * _ceil(down, precinct[1]) + (3 if halved else 1) * in_band
    return count


def _ceil(side: int, exponent: int) -> int:
    """Divide by a power of two, upwards."""
    return -(-side >> exponent)
