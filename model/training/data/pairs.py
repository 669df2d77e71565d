"""Folders of pictures and masks -> pairs on disk -> pairs in memory, of any common format and size."""

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from model import files
from model.errors import UserError
from model.pictures.masks import read_mask
from model.pictures.reading import read_image
from model.pictures.suffixes import PICTURES
from model.transforms import Pixels

HALF = 128  # of 255: a mask that was shrunk is polyp from here on
SAME_SHAPE = 0.02  # relative difference of width to height: a mask may be a smaller copy, rounded


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


def find_pairs(images: Path, masks: Path, stems: str = "*") -> list[PairFile]:
    """Match pictures and masks by name, in natural order; the data set is named after the folder above ``images``.

    ``stems`` is a pattern that the names of pictures have, without their suffixes.

    Raises:
        DatasetError: a folder is missing or empty, or a picture has no mask or two.

    """
    found = matched(images, masks, stems)
    orphans = [file.image.name for file in found if file.mask is None]
    if orphans:
        raise DatasetError(f"{masks}: no mask for {orphans[0]}" + f" and {len(orphans) - 1} more" * (len(orphans) > 1))
    return found


def matched(images: Path, masks: Path, stems: str = "*") -> list[PairFile]:
    """Match pictures and masks as ``find_pairs`` does; a picture may be without one.

    Raises:
        DatasetError: a folder is missing or empty, or a picture has two masks.

    """
    by_stem = by_stem_in(masks)
    return [PairFile(name_of(path), path, counterpart(path, by_stem)) for path in _named(images, stems)]


def by_stem_in(folder: Path) -> dict[str, Path]:
    """Return the masks or maps of a folder by their stems.

    Raises:
        DatasetError: the folder is missing or empty, or has two of one stem.

    """
    by_stem: dict[str, Path] = {}
    for path in pictures_in(folder):
        if (other := by_stem.setdefault(path.stem, path)) != path:
            raise DatasetError(f"{folder} holds {other.name} and {path.name} for one picture; keep one of them")
    return by_stem


def counterpart(picture: Path, by_stem: Mapping[str, Path]) -> Path | None:
    """Return the mask of a picture ``a.jpg``: ``a.jpg.png``, as ``pranet segment`` names it, or ``a`` of any kind."""
    return by_stem.get(picture.name) or by_stem.get(picture.stem)


def clean_frames(images: Path, stems: str = "*") -> list[PairFile]:
    """Return the pictures of a folder of frames without a polyp, in natural order; ``stems`` as in ``find_pairs``.

    Raises:
        DatasetError: the folder is missing or empty.

    """
    return [PairFile(name_of(path), path, None) for path in _named(images, stems)]


def _named(images: Path, stems: str) -> list[Path]:
    return [path for path in pictures_in(images) if fnmatch(path.stem, stems)]


def listed(pair: PairFile, names: set[str]) -> bool:
    """Whether a list of names holds a pair's full name or its stem."""
    return pair.name in names or pair.image.stem in names


def read_names(path: Path) -> set[str]:
    """Read a list of names, one a line; ``#`` starts a comment, a suffix such as ``.jpg`` is ignored.

    Raises:
        DatasetError: the list cannot be read.

    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DatasetError(f"{path}: the list of names cannot be read ({error.strerror}); check its path") from error
    except ValueError as error:
        raise DatasetError(f"{path}: the list of names is no text in UTF-8; write one name a line") from error
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return {_without_suffix(line) for line in lines if line}


def read_names_of(path: Path, pictures: Iterable[Path]) -> set[str]:
    """Read a list of names of some of the pictures, and say how many were found unless all were.

    Raises:
        DatasetError: the list cannot be read, or has names but none of a picture.

    """
    names, pictures = read_names(path), list(pictures)
    found = names & {name for picture in pictures for name in names_of(picture)}
    if names and pictures and not found:
        example = name_of(pictures[0])
        raise DatasetError(f"{path}: none of its {len(names)} names is that of a picture; write them as {example}")
    if len(found) < len(names):
        print(f"pranet: {path}: {len(found)} of {len(names)} names found", file=sys.stderr, flush=True)
    return names


def _without_suffix(name: str) -> str:
    path = Path(name)
    return str(path.with_suffix("")) if path.suffix.lower() in PICTURES else name


def read_truth(file: PairFile) -> Pixels:
    """Read the mask of a pair as uint8 (H, W) of 0 and 1; a frame without one gets zeros in its own size."""
    if file.mask is not None:
        return read_mask(file.mask)
    width, height = read_image(file.image).size
    return np.zeros((height, width), np.uint8)


def truth_of(file: PairFile, width: int, height: int) -> Pixels:
    """Read the mask of a picture of this size as uint8 (height, width) of 0 and 1; zeros without one.

    Raises:
        DatasetError: the mask has another shape than the picture, so it belongs to another one.

    """
    if file.mask is None:
        return np.zeros((height, width), np.uint8)
    mask = read_mask(file.mask)
    check_shape(file, mask, width, height)
    return np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


def read_picture(file: PairFile) -> Image.Image:
    """Read the picture of a pair, RGB, whose mask may be its mask.

    Raises:
        DatasetError: the mask has another shape.

    """
    picture = read_image(file.image)
    if file.mask is not None:
        check_shape(file, read_mask(file.mask), *picture.size)
    return picture


def check_shape(file: PairFile, mask: Pixels, width: int, height: int) -> None:
    """Check that a mask (H, W) can be that of a picture of this size.

    Raises:
        DatasetError: it has another shape than the picture, so it belongs to another one.

    """
    if abs(mask.shape[1] * height / (mask.shape[0] * width) - 1) > SAME_SHAPE:
        sizes = f"{mask.shape[1]}x{mask.shape[0]} pixels, and its picture {width}x{height}"
        raise DatasetError(f"{file.mask}: the mask has {sizes}; give each picture its own mask")


def read_pair(file: PairFile, side: int) -> Pair:
    """Read a pair; a picture whose long side exceeds ``side`` pixels is shrunk to it, its mask likewise."""
    image = np.asarray(read_image(file.image))
    mask = np.zeros(image.shape[:2], np.uint8) if file.mask is None else read_mask(file.mask)
    check_shape(file, mask, image.shape[1], image.shape[0])
    factor = min(1.0, side / max(image.shape[:2]))
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    shrunk = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    if mask.shape != shrunk.shape[:2]:
        levels = cv2.resize(mask * np.uint8(255), size, interpolation=cv2.INTER_AREA)
        mask = (levels >= HALF).astype(np.uint8)
    return Pair(np.ascontiguousarray(shrunk, dtype=np.uint8), mask)


def names_of(picture: Path) -> tuple[str, str]:
    """Return the names by which a list may refer to a picture: its stem, alone or as ``dataset/stem``."""
    return picture.stem, name_of(picture)


def name_of(picture: Path) -> str:
    """Name a picture after the folder above its own, by the path that was given and no link of it, and its stem."""
    return f"{Path(os.path.abspath(picture)).parent.parent.name}/{picture.stem}"


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures of a folder in natural order.

    Raises:
        DatasetError: it is missing, or holds none.

    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; check its path")
    found = files.listed(folder, PICTURES)
    if not found:
        raise DatasetError(f"{folder}: holds no pictures; give a folder with {', '.join(sorted(PICTURES))} files")
    return found
