"""Small files that ask for a lot of work are refused before any of it; pictures that only look like them are read."""

import io
import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from model.pictures.limits import MAX_SCANS, MAX_STEPS
from service.errors import UndecodableImage
from service.frames import codec
from tests.support.patching import Patches
from tests.support.pictures import encoded, red_box, repeat_last_scan

MAX_PIXELS = 10_000_000
PICTURE = red_box(64, 48, (8, 8, 40, 40))
JPEG, PNG = encoded(PICTURE, "JPEG"), encoded(PICTURE)
PROGRESSIVE = encoded(PICTURE, "JPEG", progressive=True)
PNG_HEADER = 33  # bytes of the signature and the first chunk
EMPTY_CHUNK = struct.pack(">I4sI", 0, b"prVt", zlib.crc32(b"prVt"))


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content


def after_start(inserted: bytes, jpeg: bytes = JPEG) -> bytes:
    return jpeg[:2] + inserted + jpeg[2:]


def tiff(compression: int, strip: bytes, following: int = 0, count: int = 8) -> bytes:
    """Write a grey TIFF of 64x48 in one strip, whose directory declares ``count`` tags."""
    tags = ((256, 64), (257, 48), (258, 8), (259, compression), (262, 1), (273, 122), (278, 48), (279, len(strip)))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack("<H", count) + entries + struct.pack("<I", following)
    return (struct.pack("<2sHI", b"II", 42, 8) + directory).ljust(122, b"\0") + strip


def strips(rows: int, bits: int = 1) -> bytes:
    """Write a grey TIFF 8 pixels wide, each row of which is a strip, all in the same place."""
    places, lengths, eights = (8 + 2 + 12 * 9 + 4 + 4 * rows * at for at in range(3))
    tags = (
        (256, 1, 8), (257, 1, rows), (258, bits, 8 if bits == 1 else eights), (259, 1, 1), (262, 1, 1),
        (273, rows, places), (277, 1, 1), (278, 1, 1), (279, rows, lengths),
    )  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, values, value) for tag, values, value in tags)
    lists = (eights + 4 * bits,) * rows + (8,) * rows + (8,) * bits
    return (
        struct.pack("<2sHIH", b"II", 42, 8, 9) + entries + bytes(4) + struct.pack(f"<{len(lists)}I", *lists) + bytes(8)
    )


def run_lengths() -> bytes:
    """Write a BMP whose rows are each ended at their first pixel."""
    rows = b"\1\0\0\0" * 48
    header = struct.pack("<IiiHHIIiiII", 40, 64, 48, 1, 8, 1, len(rows), 0, 0, 256, 0) + bytes(1024)
    return struct.pack("<2sIII", b"BM", 14 + len(header) + len(rows), 0, 14 + len(header)) + header + rows


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "progressive scans": (lambda: repeat_last_scan(PROGRESSIVE, MAX_SCANS), "32 scans; save it as baseline JPEG"),
    "sequential scans": (lambda: repeat_last_scan(JPEG, MAX_SCANS), "32 scans; save it as baseline JPEG"),
    "segments": (lambda: after_start(segment(0xE9, b"") * MAX_STEPS), "segments, or bytes between"),
    "segments in what Pillow does not pass over": (
        lambda: after_start(segment(0xF0, segment(0xE9, b"") * (MAX_STEPS // 4)) * 4),
        "segments, or bytes between",
    ),
    "fill bytes": (lambda: after_start(b"\xff" * MAX_STEPS), "segments, or bytes between"),
    "chunks": (lambda: PNG[:PNG_HEADER] + EMPTY_CHUNK * MAX_STEPS + PNG[PNG_HEADER:], "chunks; save it again"),
    "pictures": (lambda: tiff(1, bytes(64 * 48), following=8 + 64 * 48), "more than one picture"),
    "strips": (lambda: strips(MAX_STEPS + 1), "strips or tiles; save it again in larger ones"),
    "tags": (lambda: tiff(1, bytes(64 * 48), count=MAX_STEPS + 1), "tags; save it again"),
    "tags of a BigTIFF": (
        lambda: struct.pack("<2s3HQQ", b"II", 43, 8, 0, 16, 10**6) + bytes(40),
        "tags; save it again",
    ),
    "values of a tag": (lambda: strips(48, bits=100), "tag 258 has more than 64 values"),
    "run lengths": (run_lengths, "send it uncompressed"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_without_decoding_or_counting(patched: Patches, name: str) -> None:
    make, advice = BOMBS[name]
    load, count = patched(ImageFile.ImageFile, "load"), patched(TiffImageFile, "n_frames")
    for read in (codec.decode, codec.size):
        with pytest.raises(UndecodableImage, match=advice):
            read(make(), MAX_PIXELS)
    assert (load.count, count.count) == (0, 0)
    codec.decode(PNG, MAX_PIXELS)
    with Image.open(io.BytesIO(encoded(PICTURE, "TIFF"))) as harmless:
        assert harmless.n_frames == 1
    assert load.count > 0
    assert count.count > 0


def test_the_scans_of_a_jpeg_inside_of_a_tiff_are_bounded_too() -> None:
    jpeg = encoded(PICTURE.convert("L"), "JPEG", progressive=True)
    assert codec.decode(tiff(7, jpeg), MAX_PIXELS).size == PICTURE.size
    with pytest.raises(UndecodableImage):
        codec.decode(tiff(7, repeat_last_scan(jpeg, MAX_SCANS)), MAX_PIXELS)


def noise(width: int, height: int) -> Image.Image:
    return Image.effect_noise((width, height), 80)


def by_opencv(kind: str, *options: int) -> bytes:
    pixels = np.asarray(noise(1600, 1200).convert("RGB"))
    return cv2.imencode(kind, pixels, options)[1].tobytes()


GOOD: dict[str, Callable[[], bytes]] = {
    "a large progressive JPEG": lambda: encoded(noise(2000, 1500).convert("RGB"), "JPEG", progressive=True),
    "a progressive JPEG of four colours": lambda: encoded(PICTURE.convert("CMYK"), "JPEG", progressive=True),
    "a progressive JPEG of OpenCV": lambda: by_opencv(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "thumbnails with scans of their own": lambda: after_start(segment(0xE1, PROGRESSIVE[:-2]) * 8, PROGRESSIVE),
    "a film behind the picture": lambda: PROGRESSIVE + b"\xff\xda\0\2" * MAX_STEPS,
    "more restart markers than steps": lambda: encoded(noise(2048, 1040), "JPEG", restart_marker_blocks=1),
    "a profile of many segments": lambda: encoded(PICTURE, "JPEG", icc_profile=bytes(5_000_000)),
    "a PNG of OpenCV": lambda: by_opencv(".png"),
    "a PNG of Pillow": lambda: encoded(noise(2000, 1500).convert("RGB")),
    "a TIFF of JPEG": lambda: encoded(noise(1600, 1200), "TIFF", compression="jpeg"),
    "a TIFF with a strip for each of many rows": lambda: strips(MAX_STEPS),
    "a TIFF of strips": lambda: encoded(noise(1600, 1200), "TIFF", compression="tiff_lzw"),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_only_looks_like_it_is_read(name: str) -> None:
    data = GOOD[name]()
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        assert codec.decode(data, MAX_PIXELS).size == picture.size
    assert codec.size(data, MAX_PIXELS) == picture.size
