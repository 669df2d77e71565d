"""Reads every file of a folder as the service does, and compares the pixels with those of other readers.

    python -m tools.corpus DIR

The other readers are OpenCV, Pillow by itself, ImageMagick (``magick`` or ``convert``) and FFmpeg (PyAV), as far as
they are installed. A row is printed for files that the service refuses although two of them agree on the pixels, or
shows otherwise than two that agree. Readers agree if their pixels differ by at most ``MOST`` levels in the mean. Exit
status 0: no such file.
"""

import argparse
import contextlib
import io
import itertools
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from model.pictures.errors import PictureError, UnknownFormat
from model.pictures.reading import opened

MOST = 2.0  # levels of 255 that readers may differ by in the mean: decoders of JPEG round differently
MAX_PIXELS = 64_000_000

Pixels = npt.NDArray[np.uint8]  # RGB (H, W, 3), over black
Readers = dict[str, Callable[[bytes], Pixels]]


def by_opencv(data: bytes) -> Pixels:
    """Read as OpenCV does; alpha, which it leaves alone, is blended with black."""
    encoded = np.frombuffer(data, np.uint8)
    colour = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    whole = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
    if whole.ndim == 3 and whole.shape[2] == 4 and whole.shape[:2] == colour.shape[:2]:
        alpha = whole[..., 3:] / np.float32(np.iinfo(whole.dtype).max)
        return np.rint(cv2.cvtColor(colour, cv2.COLOR_BGR2RGB) * alpha).astype(np.uint8)
    return np.asarray(cv2.cvtColor(colour, cv2.COLOR_BGR2RGB), np.uint8)


def by_pillow(data: bytes) -> Pixels:
    """Read as scripts do that convert whatever Pillow opens."""
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    layered = picture.convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", layered.size, (0, 0, 0, 255)), layered).convert("RGB"))


def by_ffmpeg(data: bytes) -> Pixels:
    """Read the first picture that FFmpeg decodes."""
    import av  # of an extra

    with av.open(io.BytesIO(data)) as file:
        return next(file.decode(video=0)).to_ndarray(format="rgb24")


def by_imagemagick(data: bytes) -> Pixels:
    """Read as ImageMagick's command line does."""
    upright = ["-[0]", "-auto-orient", "-background", "black", "-alpha", "remove"]
    command = [shutil.which("magick") or "convert", *upright, "-colorspace", "sRGB", "-depth", "8", "ppm:-"]
    done = subprocess.run(command, input=data, capture_output=True, check=True, timeout=60)
    return np.asarray(Image.open(io.BytesIO(done.stdout)).convert("RGB"))


def installed() -> Readers:
    """Return the readers that are installed."""
    found: Readers = {"OpenCV": by_opencv, "Pillow": by_pillow}
    if command := shutil.which("magick") or shutil.which("convert"):
        said = subprocess.run([command, "-version"], capture_output=True, text=True, check=False).stdout
        found |= {"ImageMagick": by_imagemagick} if "ImageMagick" in said else {}
    return found | ({"FFmpeg": by_ffmpeg} if find_spec("av") else {})


class Row(NamedTuple):
    """A file that the service reads otherwise than two readers that agree."""

    name: str
    seen: str  # what the service says, or who shows the same
    agreed: str  # the readers that agree with each other


def difference(one: Pixels, other: Pixels) -> float:
    """Return the mean difference in levels; infinity if the sizes differ."""
    return float(np.abs(one.astype(np.int16) - other).mean()) if one.shape == other.shape else float("inf")


def compare(data: bytes, name: str, readers: Readers) -> Row | None:
    """Compare the service's pixels of one file with those of readers that agree; None if nothing speaks against it.

    Raises:
        UnknownFormat: it is of no format that the service reads.

    """
    try:
        ours: Pixels | str = np.asarray(opened(data, MAX_PIXELS).rgb())
    except UnknownFormat:
        raise
    except PictureError as error:
        ours = f"refused: {error}"
    except Exception as error:
        return Row(name, f"fails: {error!r}", "")
    seen = dict(_read(data, readers))
    pairs = [pair for pair in itertools.combinations(seen, 2) if difference(*(seen[each] for each in pair)) <= MOST]
    same = [] if isinstance(ours, str) else [each for each in seen if difference(ours, seen[each]) <= MOST]
    if not pairs or any(each in pair for pair in pairs for each in same):
        return None
    said = ours if isinstance(ours, str) else f"shows what {', '.join(same) or 'nobody else'} shows"
    return Row(name, said, ", ".join(pairs[0]))


def _read(data: bytes, readers: Readers) -> Iterator[tuple[str, Pixels]]:
    for name, reader in readers.items():
        with contextlib.suppress(Exception):  # a reader may refuse as it likes
            yield name, reader(data)


def main(folder: Path) -> int:
    """Compare every file below a folder; returns the exit status."""
    warnings.simplefilter("ignore")
    rows, read, unknown, readers = [], 0, 0, installed()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            row = compare(path.read_bytes(), str(path.relative_to(folder)), readers)
        except UnknownFormat:
            unknown += 1
            continue
        read += 1
        rows += [row] if row else []
    print("| files | such as | the service | readers that agree |\n|---|---|---|---|")
    for (seen, agreed), members in itertools.groupby(sorted(rows, key=lambda row: row[1:]), key=lambda row: row[1:]):
        names = [row.name for row in members]
        print(f"| {len(names)} | {names[0]} | {seen} | {agreed} |")
    print(f"\n{read} files compared with {', '.join(readers)}: {len(rows)} in the table; {unknown} of other formats")
    return int(bool(rows))


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path, metavar="DIR")
    sys.exit(main(arguments.parse_args().folder))
