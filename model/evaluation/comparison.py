"""Comparison of two checkpoints on annotated pictures: how far their masks agree, and how accurate each is."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from model import transforms
from model.dice import dice
from model.engines.torch.predictor import TorchPredictor
from model.errors import UserError
from model.pictures.masks import read_mask
from model.pictures.reading import read_image
from model.training.data.pairs import counterpart, pictures_in
from model.transforms import Pixels
from model.weights.checkpoint import Checkpoint

THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class Comparison:
    """Mean Dice coefficients (0..1) over ``pictures`` pictures."""

    pictures: int
    agreement: float  # between the two masks
    one: float  # between the first checkpoint's mask and the annotation
    other: float  # between the second checkpoint's mask and the annotation


def pairs(images: Iterable[Path], masks: Iterable[Path], only: frozenset[str] = frozenset()) -> list[tuple[Path, Path]]:
    """Match pictures with annotations of the same file name; extensions may differ.

    Args:
        images: folders of pictures.
        masks: folders of annotations, read as ``model.pictures.masks`` says.
        only: file names without extension to keep; all if empty.

    Raises:
        UserError: no picture has an annotation.

    """
    annotations = {file.stem: file for folder in masks for file in pictures_in(folder)}
    pictures = [file for folder in images for file in pictures_in(folder)]
    found = [
        (file, annotation)
        for file in pictures
        if (annotation := counterpart(file, annotations)) and (not only or file.stem in only)
    ]
    if not found:
        raise UserError("no picture in --images has an annotation of the same name in --masks; give other folders")
    return found


def compare(one: Checkpoint, other: Checkpoint, files: Iterable[tuple[Path, Path]]) -> Comparison:
    """Segment every picture at its own size with both checkpoints, in float32 on the CPU, and average the Dice."""
    predictors = [TorchPredictor(each, "fp32") for each in (one, other)]
    scores = np.array(list(_scores(predictors, files)))  # (N, 3)
    return Comparison(len(scores), *scores.mean(axis=0).tolist())


def _scores(predictors: list[TorchPredictor], files: Iterable[tuple[Path, Path]]) -> Iterator[tuple[float, ...]]:
    for image, annotation in files:
        picture, truth = read_image(image), read_mask(annotation)
        first, second = (_segment(predictor, picture) for predictor in predictors)
        yield dice(first, second), dice(first, truth), dice(second, truth)


def _segment(predictor: TorchPredictor, picture: Image.Image) -> Pixels:
    logits = predictor.predict(transforms.to_input(picture)[None])[0]
    return transforms.to_mask(transforms.upsample(logits, picture.width, picture.height), THRESHOLD)
