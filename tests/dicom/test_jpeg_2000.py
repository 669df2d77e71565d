"""A JPEG 2000 is refused for what it would make a decoder allocate, before a decoder sees it."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from service.dicom import jpeg_2000
from service.errors import UnsupportedImage

COD, SOT = b"\xff\x52", b"\xff\x90"
MEGAPIXELS_50 = (8660, 5774)


def coded(side: int = 64, **options: object) -> bytes:
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(noise).save(out, "JPEG2000", no_jp2=True, **options)
    return out.getvalue()


def declared(
    size: tuple[int, int],
    *,
    tile: tuple[int, int] | None = None,
    block: tuple[int, int] = (6, 6),
    precinct: int | None = None,
    levels: int = 5,
) -> bytes:
    """Return a codestream whose header declares this; exponents of blocks and precincts, for all resolutions."""
    siz = struct.pack(">HH8IH", 0, 0, *size, 0, 0, *(tile or size), 0, 0, 3) + bytes((7, 1, 1)) * 3
    style = bytes((precinct is not None, 0, 0, 1, 1, levels, block[0] - 2, block[1] - 2, 0, 1))
    style += bytes((precinct | precinct << 4,)) * (levels + 1) if precinct is not None else b""
    part = SOT + struct.pack(">HHIBB", 10, 0, 14, 0, 1) + b"\xff\x93"
    siz = struct.pack(">H", len(siz)) + siz[2:]
    return b"\xff\x4f\xff\x51" + siz + COD + struct.pack(">H", 2 + len(style)) + style + part


@pytest.mark.parametrize("options", [{}, {"tile_size": (16, 16)}, {"precinct_size": (32, 32)}, {"num_resolutions": 1}])
def test_what_encoders_write_is_read(options: dict[str, object]) -> None:
    assert jpeg_2000.size(coded(**options)) == (64, 64)


@pytest.mark.parametrize(
    "options", [{"block": (5, 5)}, {"block": (10, 2)}, {"precinct": 7}, {"tile": (512, 512)}, {"levels": 0}]
)
def test_the_largest_picture_in_usual_styles_is_read(options: dict[str, object]) -> None:
    assert jpeg_2000.size(declared(MEGAPIXELS_50, **options)) == MEGAPIXELS_50  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"block": (2, 2)}, "code blocks and precincts"),
        ({"precinct": 3}, "code blocks and precincts"),
        ({"precinct": 0, "levels": 0}, "code blocks and precincts"),
        ({"block": (2, 2), "tile": (512, 512)}, "code blocks and precincts"),
        ({"tile": (64, 64)}, "8192 tiles"),
    ],
)
def test_a_small_file_that_makes_a_decoder_allocate_much_is_refused(options: dict[str, object], reason: str) -> None:
    with pytest.raises(UnsupportedImage, match=reason):
        jpeg_2000.size(declared(MEGAPIXELS_50, **options))  # type: ignore[arg-type]


def test_the_style_of_one_component_counts_too() -> None:
    data = declared(MEGAPIXELS_50)
    at = data.index(SOT)
    component = b"\xff\x53" + struct.pack(">HBB", 9, 2, 0) + bytes((5, 0, 0, 0, 1))
    with pytest.raises(UnsupportedImage, match="code blocks"):
        jpeg_2000.size(data[:at] + component + data[at:])


def test_a_tile_may_not_have_a_style_of_its_own() -> None:
    data = coded(tile_size=(32, 32))
    begin = data.index(COD)
    style = data[begin : begin + 4 + data[begin + 3] - 2]
    last = data.rindex(SOT)
    first = data.index(SOT)
    comment = b"\xff\x64" + struct.pack(">HH", 18, 0) + SOT + struct.pack(">HHIBB", 10, 0, 0, 0, 1) + b"\xff\x93"
    for before in (b"", comment):  # which only looks like the beginning of a tile
        with pytest.raises(UnsupportedImage, match="one style"):
            jpeg_2000.size(data[:first] + before + data[first : last + 12] + style + data[last + 12 :])


def test_a_header_that_is_cut_off_declares_nothing() -> None:
    data = coded()
    for length in range(data.index(SOT)):
        assert jpeg_2000.size(data[:length]) is None


def test_tile_parts_are_bounded() -> None:
    data = declared((64, 64))
    part = data[data.index(SOT) :]
    assert jpeg_2000.size(data + part * 9) == (64, 64)
    with pytest.raises(UnsupportedImage, match="tile-parts"):
        jpeg_2000.size(data + part * jpeg_2000.MAX_TILE_PARTS)


@pytest.mark.parametrize(("times", "levels"), [(5, 5), (1, 33)])
def test_a_header_of_more_styles_or_levels_than_there_can_be_declares_nothing(times: int, levels: int) -> None:
    data = declared((64, 64))
    at = data.index(SOT)
    component = b"\xff\x53" + struct.pack(">HBB", 9, 2, 0) + bytes((levels, 4, 4, 0, 1))
    assert jpeg_2000.size(data[:at] + component * times + data[at:]) is None


def test_the_segments_of_a_header_are_bounded() -> None:
    data = declared((64, 64))
    at = data.index(SOT)
    comment = b"\xff\x64" + struct.pack(">HH", 4, 0)
    assert jpeg_2000.size(data[:at] + comment * 100 + data[at:]) == (64, 64)
    with pytest.raises(UnsupportedImage, match="segments"):
        jpeg_2000.size(data[:at] + comment * jpeg_2000.MAX_SEGMENTS + data[at:])
