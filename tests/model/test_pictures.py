"""What JPEG, PNG, WebP and BMP files say of their pixels is what is read; what is not read is named."""

import io
import struct
import zlib
from collections.abc import Callable
from fractions import Fraction

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps

from model.pictures.errors import PictureError, TooLarge, UnknownFormat, UnreadablePicture
from model.pictures.reading import opened, read_image
from tests.support.pictures import DATA, SAMPLES, encoded

COLOUR = Image.open(SAMPLES[0]).convert("RGB").resize((52, 38))
GREY = np.asarray(COLOUR.convert("L"))
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
SIGNATURE = 8
TEN_BITS = (0x3FF00000, 0xFFC00, 0x3FF)  # masks of red, green and blue

Array = npt.NDArray[np.uint8]


def shown(data: bytes) -> Array:
    return np.asarray(opened(data).rgb())


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(levels: npt.NDArray[np.generic], depth: int, colour: int, hidden: bytes) -> bytes:
    """Write a PNG of rows of bytes with a tRNS chunk."""
    width = levels.shape[1] * 8 // depth if depth < 8 else levels.shape[1]
    rows = b"".join(b"\0" + row.tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", width, len(levels), depth, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"tRNS", hidden) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_orientation_that_stands_only_in_xmp_does_not_turn(kind: str) -> None:
    if kind == "PNG":
        data = encoded(COLOUR)
        text = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)
        data = data[: SIGNATURE + 25] + text + data[SIGNATURE + 25 :]
    else:
        data = encoded(COLOUR, kind, xmp=XMP)
    assert Image.open(io.BytesIO(data)).getexif().get(0x0112) == 6
    assert opened(data).size == opened(data).rgb().size == COLOUR.size


def test_exif_after_the_pixels_of_a_png_turns_size_and_picture_alike() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(COLOUR)
    data = data[:-12] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + data[-12:]
    assert opened(data).size == opened(data).rgb().size == COLOUR.size[::-1]


def test_a_wrong_checksum_of_an_ancillary_chunk_costs_the_chunk() -> None:
    data = encoded(COLOUR)
    gamma = bytearray(chunk(b"gAMA", struct.pack(">I", 45455)))
    gamma[-1] ^= 1
    assert (shown(data[:33] + gamma + data[33:]) == np.asarray(COLOUR)).all()


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT", b"PLTE"])
def test_a_wrong_checksum_of_a_critical_chunk_is_named(kind: bytes) -> None:
    data = bytearray(encoded(COLOUR.convert("P") if kind == b"PLTE" else COLOUR))
    at = data.index(kind) - 4
    data[at + 8 + int.from_bytes(data[at : at + 4])] ^= 1
    with pytest.raises(UnreadablePicture, match=rf"checksum of the chunk {kind.decode()} at byte {at} is wrong.*again"):
        shown(bytes(data))


@pytest.mark.parametrize("depth", [2, 4])
def test_a_transparent_level_counts_in_the_bits_of_the_file(depth: int) -> None:
    levels = np.array([[0x1B] * 3], np.uint8) if depth == 2 else np.array([[0x1F, 0x2F]], np.uint8)
    digits = np.unpackbits(levels, axis=1).reshape(1, -1, depth)
    values = (digits @ (1 << np.arange(depth)[::-1])).astype(int)
    expected = np.where(values == 1, 0, values * (255 // (2**depth - 1)))
    assert (shown(png(levels, depth, 0, struct.pack(">H", 1)))[..., 0] == expected).all()


@pytest.mark.parametrize(("hidden", "expected"), [(0, [0, 255]), (1, [0, 0]), (255, [0, 0])])
def test_of_a_transparent_level_only_the_bits_of_the_file_count(hidden: int, expected: list[int]) -> None:
    """PNG specification, 11.3.2.1: decoders must mask the other bits."""
    assert shown(png(np.array([[0x40]], np.uint8), 1, 0, struct.pack(">H", hidden)))[0, :2, 0].tolist() == expected


@pytest.mark.parametrize("kind", [b"iTXt", b"zTXt", b"iCCP"])
def test_text_that_unpacks_to_much_does_not_cost_the_picture(kind: bytes) -> None:
    start = b"XML:com.adobe.xmp\0\1\0\0\0" if kind == b"iTXt" else b"name\0\0"
    large = chunk(kind, start + zlib.compress(bytes(2**21)))
    data = encoded(COLOUR)
    assert (shown(data[: SIGNATURE + 25] + large + data[SIGNATURE + 25 :]) == np.asarray(COLOUR)).all()


def test_transparent_levels_of_16_bits_are_black() -> None:
    grey = np.array([[1000, 1001, 65535]], ">u2")
    assert shown(png(grey, 16, 0, struct.pack(">H", 65535)))[0, :, 0].tolist() == [4, 4, 0]
    colours = np.array([[[255, 255, 255], [65535, 65535, 65535], [257, 257, 257]]], ">u2")
    assert shown(png(colours, 16, 2, struct.pack(">3H", 257, 257, 257)))[0, :, 0].tolist() == [0, 255, 0]
    assert shown(png(colours, 16, 2, struct.pack(">3H", 255, 255, 255)))[0, :, 0].tolist() == [0, 255, 1]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_is_transparent_in_16_bits_is_turned_with_the_picture(orientation: int) -> None:
    levels = np.full((2, 3, 3), 257 * 200, ">u2")
    levels[0, 0] = 257
    exif = Image.Exif()
    exif[0x0112] = orientation
    block = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    data = png(levels, 16, 2, struct.pack(">3H", 257, 257, 257))
    data = data[: SIGNATURE + 25] + block + data[SIGNATURE + 25 :]
    expected = np.where(levels == 257, 0, 200).astype(np.uint8)
    turned = ImageOps.exif_transpose(with_exif(Image.fromarray(expected), exif))
    assert (shown(data) == np.asarray(turned)).all()


def with_exif(picture: Image.Image, exif: Image.Exif) -> Image.Image:
    return Image.open(io.BytesIO(encoded(picture, exif=exif)))


def bmp(pixels: npt.NDArray[np.generic], masks: tuple[int, int, int]) -> bytes:
    bits = pixels.dtype.itemsize * 8
    header = struct.pack("<IiiHHIIiiII3I", 40, pixels.shape[1], -len(pixels), 1, bits, 3, 0, 0, 0, 0, 0, *masks)
    return struct.pack("<2sIII", b"BM", 0, 0, 14 + len(header)) + header + pixels.tobytes()


def test_bit_fields_of_10_bits_are_read() -> None:
    wide = (np.asarray(COLOUR).astype(np.uint32) * 1023 + 127) // 255
    pixels = (wide[..., 0] << 20 | wide[..., 1] << 10 | wide[..., 2]).astype("<u4")
    assert (shown(bmp(pixels, TEN_BITS)) == np.asarray(COLOUR)).all()


def lossless(planes: npt.NDArray[np.uint8], pixels: str) -> bytes:
    """Write a JPEG of process 14, selection value 1 (SOF3) without JFIF or Adobe markers."""
    av = pytest.importorskip("av")
    codec = av.CodecContext.create("ljpeg", "w")
    codec.height, codec.width = planes.shape[:2]
    codec.pix_fmt, codec.time_base = pixels, Fraction(1, 25)
    kind = "yuv444p" if pixels == "yuvj444p" else "rgb24"  # planes as they are, or to be converted
    frame = av.VideoFrame.from_ndarray(
        np.ascontiguousarray(np.moveaxis(planes, -1, 0) if kind == "yuv444p" else planes), format=kind
    )
    if kind == "yuv444p":
        frame.color_range = 2  # full, so that the levels stay
    frame = frame.reformat(format=pixels, src_color_range=2, dst_color_range=2)
    return b"".join(bytes(packet) for packet in codec.encode(frame) + codec.encode(None))


LARGE = np.asarray(COLOUR.resize((720, 704)))
LUMA = np.asarray(Image.fromarray(LARGE).convert("YCbCr"))
JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
LOSSLESS: dict[str, Callable[[], bytes]] = {
    "shared chroma": lambda: lossless(LARGE, "yuvj420p"),
    "RGB": lambda: lossless(LARGE, "yuvj444p"),
    "YCbCr that JFIF declares": lambda: b"\xff\xd8" + JFIF + lossless(LUMA, "yuvj444p")[2:],
}


@pytest.mark.parametrize("least_side", [0, 352])
@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_jpeg_has_its_colours_at_any_size(kind: str, least_side: int) -> None:
    data = LOSSLESS[kind]()
    assert b"\xff\xc3" in data
    picture = opened(data).rgb(least_side)
    assert picture.size == LARGE.shape[1::-1]
    assert np.abs(np.asarray(picture).astype(int) - LARGE).mean() < 1.5


def test_lossless_jpeg_that_declares_no_colours_is_rgb_as_libjpeg_turbo_says() -> None:
    data = lossless(LUMA, "yuvj444p")  # as FFmpeg writes it: nothing in the file tells it from RGB
    seen = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert (shown(data) == seen).all()
    assert (shown(data) == LUMA).all()


def test_arithmetic_coding_is_read_whatever_its_length() -> None:
    data = (DATA / "arithmetic.jpg").read_bytes()
    assert len(data) > 65536
    sample = np.asarray(read_image(SAMPLES[0])).astype(int)
    assert np.abs(shown(data) - sample).mean() < 1


@pytest.mark.parametrize(
    ("size", "reduced"), [((160, 96), (40, 24)), ((161, 96), (161, 96)), ((162, 98), (81, 49)), ((84, 84), (21, 21))]
)
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_jpeg_is_reduced_only_to_what_shows_exactly_the_same(
    size: tuple[int, int], reduced: tuple[int, int], orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = opened(encoded(COLOUR.resize(size), "JPEG", exif=exif))
    turn = slice(None, None, -1) if orientation == 6 else slice(None)
    assert (picture.rgb(20).size, picture.size) == (reduced[turn], size[turn])


def frame_of(jpeg: bytes) -> int:
    return jpeg.index(b"\xff\xc0")


def with_byte(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes([value]) + data[at + 1 :]


def without_palette(png: bytes) -> bytes:
    start = png.index(b"PLTE") - 4
    return png[:start] + png[start + 12 + int.from_bytes(png[start : start + 4]) :]


def with_size(bmp: bytes, width: int, height: int) -> bytes:
    return bmp[:18] + struct.pack("<ii", width, height) + bmp[26:]


JPEG = encoded(COLOUR, "JPEG")
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "12 bits": (lambda: with_byte(JPEG, frame_of(JPEG) + 4, 12), "12 bits per sample is not supported; send baseline"),
    "hierarchical": (lambda: with_byte(JPEG, frame_of(JPEG) + 1, 0xC5), "hierarchical coding is not supported"),
    "JPEG-LS": (lambda: with_byte(JPEG, frame_of(JPEG) + 1, 0xF7), "JPEG-LS coding is not supported"),
    "two components": (lambda: with_byte(JPEG, frame_of(JPEG) + 9, 2), "2 components is not supported"),
    "half": (lambda: JPEG[: len(JPEG) // 2], rf"ends after {len(JPEG) // 2} bytes without an end of image\); send it"),
    "PNG as text": (lambda: encoded(COLOUR).replace(b"\r\n", b"\n"), "transfer it as binary, not as text"),
    "BMP of run lengths": (
        lambda: with_byte(encoded(COLOUR.convert("P"), "BMP"), 30, 1),
        "a BMP with run lengths is not supported; send it uncompressed",
    ),
    **{
        f"BMP of {width}x{height} pixels": (
            lambda width=width, height=height: with_size(bmp(np.zeros((4, 4), "<u4"), TEN_BITS), width, height),
            f"its header declares {width}x{height} pixels",
        )
        for width, height in [(0, 4), (-1, 4), (-(2**31), 4), (4, 0)]
    },
    **{
        f"a {kind} with a side of 65536 pixels": (
            lambda kind=kind: encoded(Image.new("L", (65536, 1)), kind),
            "65536x1 pixels, and more than 65535 on a side are not supported",
        )
        for kind in ("PNG", "BMP", "TIFF")
    },
    "a PNG of 65536 rows": (lambda: encoded(Image.new("L", (1, 65536))), "1x65536 pixels, and more than 65535"),
    "a PNG without its palette": (lambda: without_palette(encoded(COLOUR.convert("P"))), "it has no palette"),
    "WebP cut short": (lambda: encoded(COLOUR, "WEBP")[:60], "the WEBP is damaged|the WebP is damaged"),
    "half a PNG": (lambda: encoded(COLOUR)[:200], r"PNG is damaged or incomplete \(it ends too early\); send it again"),
    "a PNG without pixels": (
        lambda: encoded(COLOUR)[:40],
        r"PNG is damaged or incomplete \(it [a-z ]+\); send it again",
    ),
    "a TIFF of other coding": (
        lambda: with_byte(encoded(COLOUR, "TIFF", compression="tiff_adobe_deflate"), 8, 0),
        r"TIFF is damaged or incomplete \(it cannot be decoded\); send it again",
    ),
    "a BMP's first bytes": (
        lambda: encoded(COLOUR, "BMP")[:20],
        r"BMP is damaged or incomplete \(it [a-z ]+\); send it",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_read_is_named(kind: str) -> None:
    make, reason = REFUSED[kind]
    with pytest.raises(UnreadablePicture, match=reason) as refused:
        opened(make()).rgb(20)
    of_library = str(refused.value.__cause__)  # in words that say nothing to who sent the picture
    assert of_library not in str(refused.value)


@pytest.mark.parametrize(("kind", "head"), [(b"VP8L", b"\x2f\xff\xff\xff\xff"), (b"VP8X", bytes(4) + b"\xff" * 6)])
def test_a_webp_that_declares_more_than_pillow_opens_is_too_large(kind: bytes, head: bytes) -> None:
    chunks = b"WEBP" + kind + struct.pack("<I", 54) + head.ljust(54, b"\0")
    with pytest.raises(TooLarge):
        opened(b"RIFF" + struct.pack("<I", len(chunks)) + chunks, max_pixels=50_000_000)


def test_unknown_bytes_are_told_from_damage() -> None:
    for data in (b"hello", b"GIF89a", b"\0\0\0\x0cjP  "):
        with pytest.raises(UnknownFormat, match="send JPEG, PNG, WebP, BMP or TIFF"):
            opened(data)


def test_a_file_is_named_and_nobody_is_asked_to_send_it(tmp_path) -> None:
    (tmp_path / "half.jpg").write_bytes(JPEG[:200])
    with pytest.raises(PictureError, match=r"half\.jpg cannot be read .*; replace it") as raised:
        read_image(tmp_path / "half.jpg")
    assert "send" not in str(raised.value)


def test_16_bits_are_scaled_and_not_cut(tmp_path) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), GREY.astype(np.uint16) * 257)
    assert (np.asarray(read_image(tmp_path / "grey.png"))[..., 0] == GREY).all()
