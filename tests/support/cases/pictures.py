"""Bad pictures and how each is refused, and odd but good ones."""

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from tests.support.pictures import encoded, red_box, repeat_last_scan

GOOD = encoded(red_box(64, 48, (8, 8, 40, 40)))
WIDTH, HEIGHT = 96, 64
BOXES = ((10, 6, 50, 30), (60, 40, 90, 60))  # no flip or turn of the picture looks like it


def png_that_declares(width: int, height: int) -> bytes:
    """Write a PNG whose header asks for more than its few bytes hold."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def animated(kind: str) -> bytes:
    """Write a moving picture of two frames."""
    frames = [red_box(64, 48, (x, 8, x + 20, 40)) for x in (4, 30)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def damaged_jpeg() -> bytes:
    """Cut a JPEG in the middle of its pixels."""
    data = encoded(Image.effect_noise((200, 200), 80), "JPEG")
    return data[: len(data) // 2]


def scan_bomb() -> bytes:
    """Write a small progressive JPEG that goes on refining what it has said."""
    return repeat_last_scan(encoded(Image.new("L", (64, 48), 128), "JPEG", progressive=True), 400)


def float_tiff() -> bytes:
    """Write pixels of unknown range."""
    return encoded(Image.new("F", (32, 32), 0.5), "TIFF")


def zipped() -> bytes:
    """Write a zip with a picture."""
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        archive.writestr("a.png", GOOD)
    return file.getvalue()


def packed(mode: Literal["w", "w:gz"]) -> bytes:
    """Write a tar with a picture."""
    with tarfile.open(fileobj=(file := io.BytesIO()), mode=mode) as archive:
        member = tarfile.TarInfo("a.png")
        member.size = len(GOOD)
        archive.addfile(member, io.BytesIO(GOOD))
    return file.getvalue()


BAD: dict[str, tuple[Callable[[], bytes], int, str, str]] = {
    "nothing": (lambda: b"", 400, "invalid-request", "send one JPEG"),
    "text": (lambda: b"hello, colon", 415, "unsupported-image", "send JPEG, PNG, WebP, BMP or TIFF"),
    "one byte": (lambda: b"\xff", 415, "unsupported-image", "send JPEG"),
    "a JPEG's first bytes": (lambda: b"\xff\xd8\xff", 422, "undecodable-image", "no frame header in 3 bytes"),
    "half a JPEG": (damaged_jpeg, 422, "undecodable-image", "send it again"),
    "half a PNG": (lambda: GOOD[:60], 422, "undecodable-image", "send it again"),
    "a PNG of 60000x60000": (lambda: png_that_declares(60000, 60000), 413, "too-many-pixels", "send a smaller one"),
    "a PNG of 4 billion squared": (lambda: png_that_declares(2**31 - 1, 2**31 - 1), 413, "too-many-pixels", "smaller"),
    "a PNG of 0x0": (lambda: png_that_declares(0, 0), 422, "undecodable-image", "declares 0x0 pixels"),
    "a zip": (zipped, 415, "unsupported-image", "zip archive, not a picture; send it alone to POST /segment/batch"),
    "a tar": (lambda: packed("w"), 415, "unsupported-image", "tar archive, not a picture; send its pictures as a zip"),
    "an MP4": (lambda: b"\0\0\0\x20ftypisom", 415, "unsupported-image", "video, not a picture; stream its frames"),
    "a HEIC": (lambda: b"\0\0\0\x20ftypheic", 415, "unsupported-image", "send JPEG"),
    "a still GIF": (lambda: encoded(red_box(8, 8, (1, 1, 5, 5)), "GIF"), 415, "unsupported-image", "send JPEG"),
    "an animated GIF": (lambda: animated("GIF"), 415, "unsupported-image", "send JPEG"),
    "an animated WebP": (lambda: animated("WEBP"), 422, "undecodable-image", "one by one"),
    "an animated PNG": (lambda: animated("PNG"), 422, "undecodable-image", "one by one"),
    "a TIFF of two pages": (lambda: animated("TIFF"), 422, "undecodable-image", "one by one"),
    "a JPEG of 406 scans": (scan_bomb, 422, "undecodable-image", "save it as baseline JPEG or PNG"),
    "a TIFF of floats": (float_tiff, 422, "undecodable-image", "write SMinSampleValue"),
    "an icon": (lambda: encoded(red_box(32, 32, (1, 1, 5, 5)), "ICO"), 415, "unsupported-image", "send JPEG"),
    "a PDF": (lambda: b"%PDF-1.7\n1 0 obj\n", 415, "unsupported-image", "send JPEG"),
}


def white_boxes() -> Image.Image:
    picture = Image.new("RGB", (WIDTH, HEIGHT))
    for box in BOXES:
        picture.paste((255, 255, 255), box)
    return picture


def sixteen_bits(channels: int) -> bytes:
    grey = np.asarray(white_boxes().convert("L")).astype(np.uint16) * 257
    pixels = grey if channels == 1 else np.repeat(grey[..., None], channels, axis=2)
    if channels == 4:
        pixels[..., 3] = 65535
    return cv2.imencode(".png", pixels)[1].tobytes()


def shown_by_alpha() -> bytes:
    """White everywhere, but only the boxes are opaque."""
    picture = Image.new("RGBA", (WIDTH, HEIGHT), (255, 255, 255, 0))
    for box in BOXES:
        picture.paste((255, 255, 255, 255), box)
    return encoded(picture)


def transparent_colour() -> bytes:
    palette = Image.new("P", (WIDTH, HEIGHT), 1)
    palette.putpalette([255, 255, 255, 250, 250, 250])
    for box in BOXES:
        palette.paste(0, box)
    return encoded(palette, transparency=1)


ODD: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: encoded(white_boxes(), "JPEG", quality=95),
    "progressive JPEG": lambda: encoded(white_boxes(), "JPEG", quality=95, progressive=True),
    "WebP": lambda: encoded(white_boxes(), "WEBP"),
    "BMP": lambda: encoded(white_boxes(), "BMP"),
    "TIFF": lambda: encoded(white_boxes(), "TIFF"),
    "compressed TIFF": lambda: encoded(white_boxes(), "TIFF", compression="tiff_lzw"),
    "CMYK JPEG": lambda: encoded(white_boxes().convert("CMYK"), "JPEG", quality=95),
    "CMYK TIFF": lambda: encoded(white_boxes().convert("CMYK"), "TIFF"),
    "grey PNG": lambda: encoded(white_boxes().convert("L")),
    "grey JPEG": lambda: encoded(white_boxes().convert("L"), "JPEG", quality=95),
    "black and white": lambda: encoded(white_boxes().convert("1")),
    "grey with alpha": lambda: encoded(white_boxes().convert("LA")),
    "palette": lambda: encoded(white_boxes().convert("P", palette=Image.Palette.ADAPTIVE)),
    "palette with a transparent colour": transparent_colour,
    "alpha": shown_by_alpha,
    "16-bit grey PNG": lambda: sixteen_bits(1),
    "16-bit RGB PNG": lambda: sixteen_bits(3),
    "16-bit RGBA PNG": lambda: sixteen_bits(4),
    "16-bit grey TIFF": lambda: encoded(
        Image.fromarray(np.asarray(white_boxes().convert("L")).astype(np.uint16) * 257), "TIFF"
    ),
    "MPO of a phone": lambda: encoded(
        white_boxes(), "MPO", quality=95, save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))]
    ),
}
