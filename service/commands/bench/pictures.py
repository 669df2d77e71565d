"""The pictures that a benchmark sends: the files of a folder, or all scaled to one size and encoded beforehand."""

import io
from pathlib import Path

from PIL import ImageOps

from model.files import listed
from model.pictures.reading import read_image
from model.pictures.suffixes import PICTURES
from service.commands.segment.jobs import NothingToDo

JPEG_QUALITY = 90


def read(folder: Path, size: tuple[int, int] | None = None) -> list[bytes]:
    """Return the encoded pictures of a folder; with a size, as JPEG, scaled and cropped to it.

    Raises:
        NothingToDo: the folder holds no picture.

    """
    files = listed(folder, PICTURES)
    if not files:
        raise NothingToDo(f"no picture found in {folder}; give --images a folder of pictures")
    return [file.read_bytes() if size is None else _jpeg(file, size) for file in files]


def _jpeg(file: Path, size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    ImageOps.fit(read_image(file), size).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
