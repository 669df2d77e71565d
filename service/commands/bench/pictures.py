"""The pictures that a benchmark sends: the files of a folder, or all scaled to one size and encoded beforehand."""

import argparse
import io
import re
from pathlib import Path

from PIL import ImageOps

from model.pictures.reading import read_image
from service.commands.segment import NothingToDo
from service.commands.video.source import PICTURES

JPEG_QUALITY = 90
SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")


def size(text: str) -> tuple[int, int]:
    """Parse ``WIDTHxHEIGHT``.

    Raises:
        ArgumentTypeError: the text has another form.

    """
    found = SIZE.fullmatch(text)
    if not found or not int(found[1]) or not int(found[2]):
        raise argparse.ArgumentTypeError(f"{text!r} should be width and height in pixels, such as 1280x1024")
    return int(found[1]), int(found[2])


def read(folder: Path, size: tuple[int, int] | None = None) -> list[bytes]:
    """Return the encoded pictures of a folder; with a size, as JPEG, scaled and cropped to it.

    Raises:
        NothingToDo: the folder holds no picture.

    """
    files = sorted(file for file in folder.glob("*") if file.suffix.lower() in PICTURES)
    if not files:
        raise NothingToDo(f"no picture found in {folder}; give --images a folder of pictures")
    return [file.read_bytes() if size is None else _jpeg(file, size) for file in files]


def _jpeg(file: Path, size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    ImageOps.fit(read_image(file), size).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
