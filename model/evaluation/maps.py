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
from model.evaluation.protocols import THRESHOLD
from model.pictures.reading import read_samples
from model.pictures.samples import Samples
from model.training.data.pairs import DatasetError, PairFile, by_stem_in, counterpart, read_picture
from model.transforms import Floats

BATCH = 8
TIMED_FRAMES, TIMED_SECONDS = 20, 2.0  # at most


class Maps(Protocol):
    """Source of probability maps: a network, or a folder of files."""

    def probability(self, file: PairFile, width: int, height: int) -> Array:
        """Return the probability float64 (height, width), 0..1, of one of the pictures."""


class FolderMaps:
    """Maps in a folder, under the names of their pictures.

    Raises:
        DatasetError: the folder has no map for a picture, or one for two, or masks of classes instead of maps; or a
            mask has another shape than its picture.

    """

    def __init__(self, folder: Path, files: Sequence[PairFile]) -> None:
        by_stem = by_stem_in(folder)
        self._paths: dict[PairFile, Path] = {}
        pictures: dict[Path, Path] = {}
        for file in files:
            path = counterpart(file.image, by_stem)
            if path is None:
                raise DatasetError(f"{folder}: no map for {file.image.name}")
            if (other := pictures.setdefault(path, file.image)) != file.image:
                raise DatasetError(f"{path} would be the map of {other} and of {file.image}; judge them one by one")
            self._paths[file] = path
            read_picture(file)
        _check_scale(folder, pictures)

    def probability(self, file: PairFile, width: int, height: int) -> Array:
        """Read the map of a picture."""
        return read_map(self._paths[file], width, height)


class NetworkMaps:
    """What a network says of pictures; ``logits`` (352, 352) of each.

    Raises:
        DatasetError: a mask has another shape than its picture, so it belongs to another one.

    """

    def __init__(self, predictor: Predictor, files: Sequence[PairFile]) -> None:
        self.logits = dict(zip(files, logits_of(predictor, map(read_picture, files)), strict=True))

    def probability(self, file: PairFile, width: int, height: int) -> Array:
        """Enlarge the network's map of a picture to any size."""
        logits = transforms.upsample(self.logits[file], width, height)
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


def read_map(path: Path, width: int, height: int) -> Array:
    """Read a map of any picture's format as float64 (height, width) in 0..1; one of another size is resized.

    Raises:
        PictureError: it cannot be read; the message names the file.

    """
    probability = _probability(read_samples(path))
    if probability.shape != (height, width):
        probability = np.asarray(cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR))
    return probability


def _probability(stored: Samples) -> Array:
    if stored.palette is None and stored.levels.ndim == 2:
        return np.asarray(stored.levels / np.float64(stored.white))
    return np.asarray(np.asarray(stored.rgb().convert("L")) / np.float64(255))


def _check_scale(folder: Path, paths: Iterable[Path]) -> None:
    """Refuse masks whose polyps are 1 of 255 or a dark colour of a palette: as maps, they would find nothing."""
    most = 0
    for path in paths:
        stored = read_samples(path)
        probability = _probability(stored)
        low, high = probability.min(), probability.max()
        if high > THRESHOLD or ((probability > low) & (probability < high)).any():
            return
        most = max(most, int(stored.levels.max()))
    if most:
        raise DatasetError(
            f"{folder}: the maps have two levels, and the highest, {most}, is no more than half of white; store what "
            "is surely polyp as white"
        )


def frames_per_second(predictor: Predictor, picture: Image.Image) -> float:
    """Measure frames a second, one at a time: resize, network, and mask in the frame's own size; no file access."""
    predictor.warm_up(1)
    began, frames, seconds = time.perf_counter(), 0, 0.0
    while frames < TIMED_FRAMES and seconds < TIMED_SECONDS:
        logits = predictor.predict(transforms.to_input(picture)[None])[0]
        transforms.to_mask(transforms.upsample(logits, *picture.size), 0.5)
        frames, seconds = frames + 1, time.perf_counter() - began
    return frames / seconds
