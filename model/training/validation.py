"""How a network does on pairs of files, as a run is watched, its best weights chosen, and hospitals left out."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from model import transforms
from model.cores import usable_cores
from model.dice import dice
from model.network.normalisation import normalise
from model.pictures.reading import read_image
from model.training.data.pairs import PairFile, check_shape, read_truth
from model.training.objective import autocast

BATCH = 8
THRESHOLD = 0.5
MISSED = 0.01  # Dice below which the polyps of a picture were not found at all
MARKED = 0.005  # of a picture without a polyp, above which it counts as marked


class Score(NamedTuple):
    """One picture: Dice, the fraction that is marked, and whether it shows a polyp."""

    dice: float
    found: float
    polyp: bool


class Summary(NamedTuple):
    """Many pictures; NaN where none shows, or none lacks, a polyp."""

    polyps: int
    dice: float  # mean over pictures with a polyp
    missed: float  # share of these
    clean: int
    marked: float  # share of pictures without one

    def __str__(self) -> str:
        return (
            f"Dice {self.dice:.3f}, missed {self.missed:.1%} of {self.polyps}; "
            f"marked {self.marked:.1%} of {self.clean} without a polyp"
        )


def mean_dice(network: nn.Module, files: Sequence[PairFile], device: torch.device, precision: str) -> float:
    """Mean Dice at threshold 0.5 and original size; an empty mask found empty counts 1."""
    return float(np.mean([score.dice for score in judge(network, files, device, precision)]))


@torch.inference_mode()
def judge(network: nn.Module, files: Sequence[PairFile], device: torch.device, precision: str) -> list[Score]:
    """Judge each picture at threshold 0.5 and original size."""
    scores: list[Score] = []
    with ThreadPoolExecutor(usable_cores()) as readers:
        for start in range(0, len(files), BATCH):
            some = files[start : start + BATCH]
            images = list(readers.map(read_image, [file.image for file in some]))
            pictures = np.stack(list(readers.map(transforms.to_input, images)))
            with autocast(device, precision):
                logits = network(normalise(torch.from_numpy(pictures).to(device)))[:, 0].float().cpu().numpy()
            scores += readers.map(_score, logits, some, [image.size for image in images])
    return scores


def summarise(scores: Sequence[Score]) -> Summary:
    """Summarise pictures with and without a polyp."""
    overlaps = np.array([score.dice for score in scores if score.polyp])
    found = np.array([score.found for score in scores if not score.polyp])
    polyps = (float(overlaps.mean()), float((overlaps < MISSED).mean())) if len(overlaps) else (np.nan, np.nan)
    return Summary(len(overlaps), *polyps, len(found), float((found > MARKED).mean()) if len(found) else np.nan)


def _score(logits: transforms.Floats, file: PairFile, size: tuple[int, int]) -> Score:
    truth = read_truth(file)
    check_shape(file, truth, *size)
    mask = transforms.to_mask(transforms.upsample(logits, truth.shape[1], truth.shape[0]), THRESHOLD)
    return Score(dice(mask, truth), float((mask > 0).mean()), bool(truth.any()))
