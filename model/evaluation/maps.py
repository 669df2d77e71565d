"""Where the maps to be judged come from: a network, or a folder of anybody's pictures."""

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from PIL import Image

from model import transforms
from model.engines.predictor import Predictor
from model.evaluation.metrics.overlap import Array
from model.pictures.reading import read_image, read_samples
from model.pictures.suffixes import PICTURES
from model.training.data.pairs import DatasetError, PairFile
from model.transforms import Floats

BATCH = 8
SAME_SHAPE = 0.02  # relative difference of width to height: a mask may be a smaller copy, rounded
TIMED_FRAMES, TIMED_SECONDS = 20, 2.0  # at most


class Maps(Protocol):
    """Source of probability maps: a network, or a folder of files."""

    def probability(self, file: PairFile, width: int, height: int) -> Array:
        """Return the probability float64 (height, width), 0..1, of one of the pictures."""


class FolderMaps:
    """Maps in a folder, under the names of their pictures."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def probability(self, file: PairFile, width: int, height: int) -> Array:
        """Read the map of a picture."""
        return read_map(find_map(self._folder, file.image), width, height)


class NetworkMaps:
    """What a network says of pictures; ``logits`` (352, 352) by name."""

    def __init__(self, predictor: Predictor, files: Sequence[PairFile]) -> None:
        self._sizes: dict[str, tuple[int, int]] = {}
        frames = logits_of(predictor, map(self._read, files))
        self.logits = dict(zip((file.name for file in files), frames, strict=True))

    def _read(self, file: PairFile) -> Image.Image:
        picture = read_image(file.image)
        self._sizes[file.name] = picture.size
        return picture

    def probability(self, file: PairFile, width: int, height: int) -> Array:
        """Enlarge the network's map to the size of a picture's mask.

        Raises:
            DatasetError: the mask has another shape than the picture, so it belongs to another one.

        """
        of_picture = self._sizes[file.name]
        if abs(width * of_picture[1] / (height * of_picture[0]) - 1) > SAME_SHAPE:
            sizes = f"{width}x{height} pixels, and its picture {of_picture[0]}x{of_picture[1]}"
            raise DatasetError(f"{file.mask}: the mask has {sizes}; give each picture its own mask")
        logits = transforms.upsample(self.logits[file.name], width, height)
        return transforms.sigmoid(logits).astype(np.float64)


def logits_of(predictor: Predictor, pictures: Iterable[Image.Image]) -> Iterator[Floats]:
    """Yield the network's float32 logits (352, 352) of RGB pictures of any size, in their order."""
    waiting = []
    for picture in pictures:
        waiting.append(transforms.to_input(picture))
        if len(waiting) == BATCH:
            yield from predictor.predict(np.stack(waiting))
            waiting.clear()
    if waiting:
        yield from predictor.predict(np.stack(waiting))


def find_map(folder: Path, picture: Path) -> Path:
    """Find the map of a picture ``a.jpg``: ``a.jpg.png``, as ``pranet segment`` names it, or ``a.png`` and the like.

    Raises:
        DatasetError: the folder has none.

    """
    for name in (picture.name, picture.stem):
        for suffix in sorted(PICTURES):
            if (folder / f"{name}{suffix}").exists():
                return folder / f"{name}{suffix}"
    raise DatasetError(f"{folder}: no map for {picture.name}")


def read_map(path: Path, width: int, height: int) -> Array:
    """Read a map of any picture's format as float64 (height, width) in 0..1; one of another size is resized.

    Raises:
        PictureError: it cannot be read; the message names the file.

    """
    stored = read_samples(path)
    if stored.palette is None and stored.levels.ndim == 2:
        probability = stored.levels / np.float64(stored.white)
    else:
        probability = np.asarray(stored.rgb().convert("L")) / np.float64(255)
    if probability.shape != (height, width):
        probability = np.asarray(cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR))
    return probability


def frames_per_second(predictor: Predictor, picture: Image.Image) -> float:
    """Measure frames a second, one at a time: resize, network, and mask in the frame's own size; no file access."""
    predictor.warm_up(1)
    began, frames, seconds = time.perf_counter(), 0, 0.0
    while frames < TIMED_FRAMES and seconds < TIMED_SECONDS:
        logits = predictor.predict(transforms.to_input(picture)[None])[0]
        transforms.to_mask(transforms.upsample(logits, *picture.size), 0.5)
        frames, seconds = frames + 1, time.perf_counter() - began
    return frames / seconds
