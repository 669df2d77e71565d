"""Folders of pictures and masks -> pairs on disk -> pairs in memory, of any common format and size."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from model import files
from model.errors import UserError
from model.pictures.masks import read_mask
from model.pictures.reading import read_image
from model.pictures.suffixes import PICTURES
from model.transforms import Pixels

HALF = 128  # of 255: a mask that was shrunk is polyp from here on


class DatasetError(UserError):
    """The folders hold no usable pairs; the message names the folder or the file."""


@dataclass(frozen=True)
class PairFile:
    """A picture and its mask on disk; ``name`` is ``<data set>/<stem>``, as lists of names give it.

    A frame that is known to show no polyp has no mask.
    """

    name: str
    image: Path
    mask: Path | None


class Pair(NamedTuple):
    """RGB uint8 (H, W, 3) and mask uint8 (H, W) of 0 and 1."""

    image: Pixels
    mask: Pixels


def find_pairs(images: Path, masks: Path) -> list[PairFile]:
    """Match pictures and masks by name, in natural order; the data set is named after the folder above ``images``.

    Raises:
        DatasetError: a folder is missing or empty, or a picture has no mask.

    """
    by_stem = {path.stem: path for path in pictures_in(masks)}
    found = {path: counterpart(path, by_stem) for path in pictures_in(images)}
    orphans = [path.name for path, mask in found.items() if mask is None]
    if orphans:
        raise DatasetError(f"{masks}: no mask for {orphans[0]}" + f" and {len(orphans) - 1} more" * (len(orphans) > 1))
    return [PairFile(_name(path), path, mask) for path, mask in found.items()]


def counterpart(picture: Path, by_stem: Mapping[str, Path]) -> Path | None:
    """Return the mask of a picture ``a.jpg``: ``a.jpg.png``, as ``pranet segment`` names it, or ``a`` of any kind."""
    return by_stem.get(picture.name) or by_stem.get(picture.stem)


def clean_frames(images: Path) -> list[PairFile]:
    """Return the pictures of a folder of frames without a polyp, in natural order.

    Raises:
        DatasetError: the folder is missing or empty.

    """
    return [PairFile(_name(path), path, None) for path in pictures_in(images)]


def listed(pair: PairFile, names: set[str]) -> bool:
    """Whether a list of names holds a pair's full name or its stem."""
    return pair.name in names or pair.image.stem in names


def read_names(path: Path) -> set[str]:
    """Read a list of names, one a line; ``#`` starts a comment, a suffix such as ``.jpg`` is ignored.

    Raises:
        DatasetError: the list cannot be read.

    """
    try:
        text = path.read_text()
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: the list of names cannot be read ({error})") from error
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return {str(Path(line).with_suffix("")) if Path(line).suffix in PICTURES else line for line in lines if line}


def read_truth(file: PairFile) -> Pixels:
    """Read the mask of a pair as uint8 (H, W) of 0 and 1; a frame without one gets zeros in its own size."""
    if file.mask is not None:
        return read_mask(file.mask)
    width, height = read_image(file.image).size
    return np.zeros((height, width), np.uint8)


def read_pair(file: PairFile, side: int) -> Pair:
    """Read a pair; a picture whose long side exceeds ``side`` pixels is shrunk to it, its mask likewise."""
    image = np.asarray(read_image(file.image))
    mask = np.zeros(image.shape[:2], np.uint8) if file.mask is None else read_mask(file.mask)
    factor = min(1.0, side / max(image.shape[:2]))
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    shrunk = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    if mask.shape != shrunk.shape[:2]:
        levels = cv2.resize(mask * np.uint8(255), size, interpolation=cv2.INTER_AREA)
        mask = (levels >= HALF).astype(np.uint8)
    return Pair(np.ascontiguousarray(shrunk, dtype=np.uint8), mask)


def _name(picture: Path) -> str:
    """Name a picture after the folder above its own, and its stem."""
    return f"{picture.parent.resolve().parent.name}/{picture.stem}"


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures of a folder in natural order.

    Raises:
        DatasetError: it is missing, or holds none.

    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder")
    found = files.listed(folder, PICTURES)
    if not found:
        raise DatasetError(f"{folder}: holds no pictures")
    return found
