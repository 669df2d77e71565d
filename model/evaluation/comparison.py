"""Comparison of two checkpoints on annotated pictures: how far their masks agree, and how accurate each is."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from model import transforms
from model.dice import dice
from model.engines.torch.predictor import TorchPredictor
from model.errors import UserError
from model.pictures.reading import read_image
from model.training.data.pairs import PairFile, listed, matched, read_names_of, truth_of
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


def pairs(images: Sequence[Path], masks: Sequence[Path], only: Path | None = None) -> list[PairFile]:
    """Match pictures with annotations of the same file name; extensions may differ.

    Args:
        images: folders of pictures.
        masks: as many folders of annotations, in the same order, read as ``model.pictures.masks`` says.
        only: list of the names of the pictures to keep, with or without their data set.

    Raises:
        UserError: no picture has an annotation or is in the list, or the numbers of folders differ.

    """
    if len(images) != len(masks):
        raise UserError("give as many folders of --masks as of --images, in the same order")
    every = [file for folders in zip(images, masks, strict=True) for file in matched(*folders)]
    found = [file for file in every if file.mask]
    if found and only:
        names = read_names_of(only, [file.image for file in found])
        found = [file for file in found if listed(file, names)]
    if not found:
        raise UserError("no picture in --images has an annotation of the same name in --masks; give other folders")
    return found


def compare(one: Checkpoint, other: Checkpoint, files: Iterable[PairFile]) -> Comparison:
    """Segment every picture at its own size with both checkpoints, in float32 on the CPU, and average the Dice."""
    predictors = [TorchPredictor(each, "fp32") for each in (one, other)]
    scores = np.array(list(_scores(predictors, files)))  # (N, 3)
    return Comparison(len(scores), *scores.mean(axis=0).tolist())


def _scores(predictors: list[TorchPredictor], files: Iterable[PairFile]) -> Iterator[tuple[float, ...]]:
    for file in files:
        picture = read_image(file.image)
        truth = truth_of(file, *picture.size)
        first, second = (_segment(predictor, picture) for predictor in predictors)
        yield dice(first, second), dice(first, truth), dice(second, truth)


def _segment(predictor: TorchPredictor, picture: Image.Image) -> Pixels:
    logits = predictor.predict(transforms.to_input(picture)[None])[0]
    return transforms.to_mask(transforms.upsample(logits, picture.width, picture.height), THRESHOLD)
