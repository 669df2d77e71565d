"""TIFF: the tags decide what the samples mean, whatever the bits, planes, byte order, strips and compression."""

import io
import math
import struct
import zlib
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps

from model.pictures.errors import UnreadablePicture
from model.pictures.reading import opened
from model.pictures.samples import eight_bits
from tests.support.pictures import SAMPLES, encoded

WIDTH, HEIGHT = 52, 38
COLOUR = np.asarray(Image.open(SAMPLES[0]).convert("RGB").resize((WIDTH, HEIGHT)))
GREY = np.asarray(Image.fromarray(COLOUR).convert("L"))
TYPES = {"H": 3, "I": 4, "f": 11, "h": 8}

Tags = dict[int, int | float | Sequence[int | float]]
Array = npt.NDArray[np.uint8]


def tiff(tags: Tags, parts: Sequence[bytes], order: str = "<", tiled: bool = False, big: bool = False) -> bytes:
    """Write a TIFF whose strips or tiles are ``parts``; numbers below 65536 are SHORT, fractions FLOAT."""
    body, offsets = bytearray(), []
    for part in parts:
        offsets.append(16 + len(body))
        body += part
    places: Tags = {324: offsets, 325: [len(part) for part in parts]} if tiled else {}
    places = places or {273: offsets, 279: [len(part) for part in parts]}
    entries, following = b"", b""
    whole = {256: WIDTH, 257: HEIGHT, 259: 1, **places, **tags}
    start = 16 + len(body) + len(body) % 2
    count_form, value_form = ("Q", "Q") if big else ("I", "I")
    room = struct.calcsize(value_form)
    head_size = 8 if big else 2
    after = start + head_size + len(whole) * (4 + 2 * room) + room
    for tag, value in sorted(whole.items()):
        values = list(value) if isinstance(value, Sequence) else [value]
        form = "f" if any(isinstance(each, float) for each in values) else "h" if min(values) < 0 else "H"
        form = "I" if form == "H" and max(values) > 65535 else form
        packed = struct.pack(f"{order}{len(values)}{form}", *values)
        if len(packed) > room:
            packed, following = struct.pack(order + value_form, after + len(following)), following + packed
        entries += struct.pack(f"{order}HH{count_form}", tag, TYPES[form], len(values)) + packed.ljust(room, b"\0")
    mark = b"II" if order == "<" else b"MM"
    head = struct.pack(f"{order}2sHHHQ", mark, 43, 8, 0, start) if big else struct.pack(f"{order}2sHI", mark, 42, start)
    directory = struct.pack(order + ("Q" if big else "H"), len(whole)) + entries + bytes(room)
    return head.ljust(16, b"\0") + body.ljust(start - 16, b"\0") + directory + following


def packed(levels: npt.NDArray[np.integer], bits: int) -> bytes:
    """Pack rows of samples, most significant bit first; each row begins at a whole byte."""
    digits = (levels.reshape(len(levels), -1, 1).astype(int) >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(digits.reshape(len(levels), -1).astype(np.uint8), axis=1).tobytes()


def rgb(bits: int, **more: object) -> Tags:
    return {258: [bits] * 3, 262: 2, 277: 3}


def wide(levels: Array) -> npt.NDArray[np.uint16]:
    return levels.astype(np.uint16) * 257


def in_tiles(levels: npt.NDArray[np.generic], side: int = 16) -> list[bytes]:
    high, across = (-len(levels) % side), (-levels.shape[1] % side)
    whole = np.pad(levels, ((0, high), (0, across)) + ((0, 0),) * (levels.ndim - 2), mode="edge")
    return [
        whole[y : y + side, x : x + side].tobytes()
        for y in range(0, len(whole), side)
        for x in range(0, whole.shape[1], side)
    ]


def differences(levels: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    changed = levels.copy()
    changed[:, 1:] -= levels[:, :-1]
    return changed


def float_differences(levels: npt.NDArray[np.float32]) -> bytes:
    """Write predictor 3: the bytes of a row by significance, as differences."""
    rows = levels.astype(">f4").view(np.uint8).reshape(len(levels), -1, 4).swapaxes(1, 2).reshape(len(levels), -1)
    return differences(rows).tobytes()


def palette(levels: Array, scale: int) -> tuple[Tags, Array]:
    table = np.stack([np.arange(256), 255 - np.arange(256), (np.arange(256) * 7) % 256]).astype(int)
    return {258: 8, 262: 3, 320: (table * scale).ravel().tolist()}, table.T[levels].astype(np.uint8)


def subsampled(colour: Array, across: int, down: int) -> tuple[bytes, Array]:
    """Return YCbCr in blocks that share their chroma, and what becomes of it."""
    ycc = np.asarray(Image.fromarray(colour).convert("YCbCr")).copy()
    high, wide_ = -(-HEIGHT // down), -(-WIDTH // across)
    whole = np.pad(ycc, ((0, high * down - HEIGHT), (0, wide_ * across - WIDTH), (0, 0)), mode="edge")
    blocks = whole.reshape(high, down, wide_, across, 3).swapaxes(1, 2)
    chroma = blocks[..., 1:].mean(axis=(2, 3)).round().astype(np.uint8)
    blocks[..., 1:] = chroma[:, :, None, None]
    data = np.concatenate([blocks[..., 0].reshape(high, wide_, -1), chroma], axis=2).tobytes()
    shown = blocks.swapaxes(1, 2).reshape(high * down, wide_ * across, 3)[:HEIGHT, :WIDTH]
    return data, np.asarray(Image.fromarray(np.ascontiguousarray(shown), "YCbCr").convert("RGB"))


MIXED, EXPECTED_MIXED = palette(GREY, 257)
NARROW, _ = palette(GREY, 1)
FOUR = (GREY // 16).astype(np.uint8)
ALPHA = np.where(np.arange(WIDTH)[None] < WIDTH // 2, 255, 51).astype(np.uint8) + np.zeros_like(GREY)
BLENDED_MIXED = ((EXPECTED_MIXED.astype(int) * ALPHA[..., None] + 127) // 255).astype(np.uint8)
BLENDED = ((GREY.astype(int) * ALPHA + 127) // 255).astype(np.uint8)
INT16 = {258: 16, 262: 1, 339: 2}
FLOATS = {258: 32, 262: 1, 339: 3}

READ: dict[str, tuple[Callable[[], bytes], Array]] = {
    "RGB": (lambda: tiff(rgb(8), [COLOUR.tobytes()]), COLOUR),
    "RGB in BigTIFF": (lambda: tiff(rgb(8), [COLOUR.tobytes()], big=True), COLOUR),
    "RGB in planes": (
        lambda: tiff({**rgb(8), 284: 2}, [COLOUR[..., c].tobytes() for c in range(3)]),
        COLOUR,
    ),
    "RGB of 16 bits": (lambda: tiff(rgb(16), [wide(COLOUR).tobytes()]), COLOUR),
    "RGB of 16 bits, big-endian": (lambda: tiff(rgb(16), [wide(COLOUR).astype(">u2").tobytes()], ">"), COLOUR),
    "RGB of 16 bits in planes": (
        lambda: tiff({**rgb(16), 284: 2}, [wide(COLOUR[..., c]).tobytes() for c in range(3)]),
        COLOUR,
    ),
    "grey beside a plane that is empty": (
        lambda: tiff({258: [8, 8], 262: 1, 277: 2, 338: 0, 284: 2}, [GREY.tobytes(), b""]),
        GREY,
    ),
    "grey and alpha in planes": (
        lambda: tiff({258: [8, 8], 262: 1, 277: 2, 338: 2, 284: 2}, [GREY.tobytes(), ALPHA.tobytes()]),
        BLENDED,
    ),
    "RGB of 16 bits in planes, big-endian, in strips": (
        lambda: tiff(
            {**rgb(16), 284: 2, 278: 10},
            [wide(COLOUR[y : y + 10, :, c]).astype(">u2").tobytes() for c in range(3) for y in range(0, HEIGHT, 10)],
            ">",
        ),
        COLOUR,
    ),
    "RGB of 16 bits in tiles": (
        lambda: tiff({**rgb(16), 322: 16, 323: 16}, in_tiles(wide(COLOUR)), tiled=True),
        COLOUR,
    ),
    "RGB of 16 bits in deflated planes with differences": (
        lambda: tiff(
            {**rgb(16), 284: 2, 259: 8, 317: 2},
            [zlib.compress(differences(wide(COLOUR[..., c])).tobytes()) for c in range(3)],
        ),
        COLOUR,
    ),
    "RGB of 12 bits": (
        lambda: tiff(rgb(12), [packed((COLOUR.astype(int) * 4095 + 127) // 255, 12)]),
        COLOUR,
    ),
    "grey of 12 bits": (
        lambda: tiff({258: 12, 262: 1}, [packed((GREY.astype(int) * 4095 + 127) // 255, 12)]),
        GREY,
    ),
    "grey of 4 bits": (lambda: tiff({258: 4, 262: 1}, [packed(FOUR, 4)]), FOUR * np.uint8(17)),
    "grey of 4 bits, filled from the lowest": (
        lambda: tiff(
            {258: 4, 262: 1, 266: 2},
            [np.packbits(np.unpackbits(np.frombuffer(packed(FOUR, 4), np.uint8)), bitorder="little").tobytes()],
        ),
        FOUR * np.uint8(17),
    ),
    "black is 255": (lambda: tiff({258: 8, 262: 0}, [(255 - GREY).tobytes()]), GREY),
    "black is 65535": (lambda: tiff({258: 16, 262: 0}, [(65535 - wide(GREY)).tobytes()]), GREY),
    "black is 65535, big-endian": (
        lambda: tiff({258: 16, 262: 0}, [(65535 - wide(GREY)).astype(">u2").tobytes()], ">"),
        GREY,
    ),
    "palette": (lambda: tiff(MIXED, [GREY.tobytes()]), EXPECTED_MIXED),
    "palette of 8 bits": (lambda: tiff(NARROW, [GREY.tobytes()]), EXPECTED_MIXED),
    "palette with unassociated alpha": (
        lambda: tiff({**MIXED, 258: [8, 8], 277: 2, 338: 2}, [np.stack([GREY, ALPHA], -1).tobytes()]),
        BLENDED_MIXED,
    ),
    "palette with alpha in a plane": (
        lambda: tiff({**MIXED, 258: [8, 8], 277: 2, 338: 2, 284: 2}, [GREY.tobytes(), ALPHA.tobytes()]),
        BLENDED_MIXED,
    ),
    "palette with a sample that means nothing": (
        lambda: tiff({**MIXED, 258: [8, 8], 277: 2, 338: 0}, [np.stack([GREY, ALPHA], -1).tobytes()]),
        EXPECTED_MIXED,
    ),
    "grey with associated alpha": (
        lambda: tiff({258: [8, 8], 262: 1, 277: 2, 338: 1}, [np.stack([BLENDED, ALPHA], -1).tobytes()]),
        BLENDED,
    ),
    "grey with unassociated alpha": (
        lambda: tiff({258: [8, 8], 262: 1, 277: 2, 338: 2}, [np.stack([GREY, ALPHA], -1).tobytes()]),
        BLENDED,
    ),
    "grey of 16 bits with associated alpha": (
        lambda: tiff({258: [16, 16], 262: 1, 277: 2, 338: 1}, [wide(np.stack([BLENDED, ALPHA], -1)).tobytes()]),
        BLENDED,
    ),
    "RGB with a sample that means nothing": (
        lambda: tiff({**rgb(8), 258: [8] * 4, 277: 4, 338: 0}, [np.dstack([COLOUR, ALPHA]).tobytes()]),
        COLOUR,
    ),
    "signed with its range": (
        lambda: tiff({**INT16, 340: -300, 341: 210}, [(GREY.astype(np.int16) * 2 - 300).tobytes()]),
        GREY,
    ),
    "floats with their range": (
        lambda: tiff({**FLOATS, 340: 0.0, 341: 1.0}, [(GREY / np.float32(255)).astype(np.float32).tobytes()]),
        GREY,
    ),
    "floats with differences": (
        lambda: tiff(
            {**FLOATS, 340: 0.0, 341: 255.0, 259: 8, 317: 3}, [zlib.compress(float_differences(GREY.astype("f4")))]
        ),
        GREY,
    ),
    "CMYK": (
        lambda: tiff({258: [8] * 4, 262: 5, 277: 4}, [np.dstack([255 - COLOUR, np.zeros_like(GREY)]).tobytes()]),
        COLOUR,
    ),
    "CMYK of 16 bits": (
        lambda: tiff({258: [16] * 4, 262: 5, 277: 4}, [wide(np.dstack([255 - COLOUR, np.zeros_like(GREY)])).tobytes()]),
        COLOUR,
    ),
}


def shown(data: bytes) -> Array:
    return np.asarray(opened(data).rgb())


@pytest.mark.parametrize("kind", READ)
def test_samples_are_read_as_their_tags_describe_them(kind: str) -> None:
    make, expected = READ[kind]
    whole = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, axis=2)
    assert np.abs(shown(make()).astype(int) - whole).max() <= 0


@pytest.mark.parametrize(("across", "down"), [(2, 2), (2, 1), (4, 2), (1, 1)])
def test_chroma_that_pixels_share_is_spread_over_them(across: int, down: int) -> None:
    data, expected = subsampled(COLOUR, across, down)
    rows = 8 * down
    row = -(-WIDTH // across) * (across * down + 2)
    strips = [data[at : at + rows // down * row] for at in range(0, len(data), rows // down * row)]
    file = tiff({258: [8] * 3, 262: 6, 277: 3, 278: rows, 530: [across, down]}, strips)
    assert np.abs(shown(file).astype(int) - expected).max() <= 2


def test_cielab_is_near_the_colours_it_was_made_from() -> None:
    lab = np.asarray(cv2.cvtColor(COLOUR, cv2.COLOR_RGB2Lab)) ^ np.array([0, 128, 128], np.uint8)
    assert np.abs(shown(tiff({258: [8] * 3, 262: 8, 277: 3}, [lab.tobytes()])).astype(int) - COLOUR).mean() < 2


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "signed": (lambda: tiff(INT16, [GREY.astype(np.int16).tobytes()]), "signed samples whose range is unknown.*341"),
    "floats": (lambda: tiff(FLOATS, [GREY.astype("f4").tobytes()]), "float samples whose range is unknown.*SMinSample"),
    "WebP": (lambda: tiff({**rgb(8), 259: 50001}, [b"RIFF"]), "a TIFF with the compression WebP is not supported"),
    "JPEG 2000": (lambda: tiff({**rgb(8), 259: 34712}, [b"?"]), "the compression JPEG 2000"),
    "a filter array": (lambda: tiff({258: 8, 262: 32803}, [GREY.tobytes()]), "a colour filter array"),
    "5, 6 and 5 bits": (lambda: tiff({**rgb(8), 258: [5, 6, 5]}, [GREY.tobytes()]), "samples of 5, 6, 5 bits"),
    "inks": (
        lambda: tiff({258: [8] * 4, 262: 5, 277: 4, 332: 2}, [np.dstack([COLOUR, GREY]).tobytes()]),
        "inks other than CMYK",
    ),
    "half a strip": (lambda: tiff({**rgb(8), 279: 10**6}, [COLOUR.tobytes()]), "strip 0 ends at byte 1000016 .*again"),
    "a directory beyond any file": (
        lambda: b"II+\0" + struct.pack("<HHQ", 8, 0, 2**63) + bytes(64),
        "damaged or incomplete .its directory cannot be decoded.; send",
    ),
    "no palette": (lambda: tiff({258: 8, 262: 3}, [GREY.tobytes()]), "ColorMap has 0 entries for 8 bits"),
    "a width that is no number": (lambda: tiff({**rgb(8), 256: math.nan}, [COLOUR.tobytes()]), "tag 256 is nan"),
    "an endless width": (lambda: tiff({**rgb(8), 256: math.inf}, [COLOUR.tobytes()]), "tag 256 is inf"),
    "half a way to turn it": (lambda: tiff({**rgb(8), 274: 1.5}, [COLOUR.tobytes()]), "tag 274 is 1.5"),
    "samples that are no number": (lambda: tiff({**rgb(8), 277: math.nan}, [COLOUR.tobytes()]), "tag 277 is nan"),
    "a strip nowhere": (lambda: tiff({**rgb(8), 273: math.nan}, [COLOUR.tobytes()]), "tag 273 is nan"),
    "a strip before the file": (lambda: tiff({**rgb(8), 273: -5}, [COLOUR.tobytes()]), "tag 273 is -5"),
    "a strip of less than nothing": (lambda: tiff({**rgb(8), 279: -5}, [COLOUR.tobytes()]), "tag 279 is -5"),
    "strips of less than no row": (lambda: tiff({**rgb(8), 278: -5}, [COLOUR.tobytes()]), "tag 278 is -5"),
    "bits in no order": (lambda: tiff({258: 4, 262: 1, 266: -1}, [packed(GREY >> 4, 4)]), "tag 266 is -1"),
    "a tile too wide": (lambda: tiff({258: 8, 262: 1, 322: 2**20, 323: 16}, [GREY.tobytes()], tiled=True), "tile of"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_read_is_named(kind: str) -> None:
    make, reason = REFUSED[kind]
    with pytest.raises(UnreadablePicture, match=reason):
        opened(make()).rgb()


def test_what_pillow_writes_is_read_as_it_was() -> None:
    for compression in ("raw", "tiff_lzw", "tiff_deflate", "packbits", "tiff_adobe_deflate"):
        assert (shown(encoded(Image.fromarray(COLOUR), "TIFF", compression=compression)) == COLOUR).all()
    fax = encoded(Image.fromarray(GREY > 90), "TIFF", compression="group4")
    assert (shown(fax)[..., 0] == (GREY > 90) * np.uint8(255)).all()
    jpeg = encoded(Image.fromarray(COLOUR), "TIFF", compression="jpeg", quality=95)
    assert np.abs(shown(jpeg).astype(int) - COLOUR).mean() < 6


def test_levels_are_scaled_to_the_nearest_of_eight_bits() -> None:
    assert eight_bits(np.array([0, 8, 9, 4087, 4095], np.uint16), 4095).tolist() == [0, 0, 1, 255, 255]
    assert eight_bits(np.array([0, 128, 129, 65535], np.uint16), 65535).tolist() == [0, 0, 1, 255]


@pytest.mark.parametrize("compression", ["raw", "jpeg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_turns_size_picture_and_samples_once(orientation: int, compression: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(Image.fromarray(COLOUR), exif=exif))))
    data = encoded(Image.fromarray(COLOUR), "TIFF", exif=exif, compression=compression, quality=95)
    picture = opened(data)
    assert picture.size == picture.rgb().size == upright.size
    for seen in (picture.rgb(), opened(data).samples().rgb()):
        assert np.abs(np.asarray(seen).astype(int) - np.asarray(upright)).mean() < 6


def test_an_orientation_that_stands_only_in_xmp_turns_no_tiff() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"/>'
    for options in ({}, {"compression": "jpeg"}):
        buffer = io.BytesIO()
        Image.fromarray(COLOUR).save(buffer, "TIFF", tiffinfo={700: xmp}, **options)
        flat = opened(buffer.getvalue())
        assert flat.size == flat.rgb().size == (WIDTH, HEIGHT)
