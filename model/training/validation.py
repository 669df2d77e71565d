"""Mean Dice of a network on pairs of files, as a run is watched and its best weights are chosen."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from model import transforms
from model.comparison import dice
from model.cores import usable_cores
from model.normalisation import normalise
from model.pranet import PraNet
from model.training.loop import autocast
from model.training.pairs import PairFile, read_image, read_truth

BATCH = 8
THRESHOLD = 0.5


@torch.inference_mode()
def mean_dice(network: PraNet, files: Sequence[PairFile], device: torch.device, precision: str) -> float:
    """Mean Dice at threshold 0.5 and original size; an empty mask found empty counts 1."""
    scores: list[float] = []
    with ThreadPoolExecutor(usable_cores()) as readers:
        pictures = np.stack(list(readers.map(_input, files)))
        for start in range(0, len(files), BATCH):
            with autocast(device, precision):
                chunk = normalise(torch.from_numpy(pictures[start : start + BATCH]).to(device))
                logits = network(chunk)[:, 0].float().cpu().numpy()
            scores += readers.map(_score, logits, files[start : start + BATCH])
    return float(np.mean(scores))


def _input(file: PairFile) -> transforms.Pixels:
    return transforms.to_input(read_image(file.image))


def _score(logits: transforms.Floats, file: PairFile) -> float:
    truth = read_truth(file)
    return dice(transforms.to_mask(transforms.upsample(logits, truth.shape[1], truth.shape[0]), THRESHOLD), truth)
