"""Mean Dice of a network on pairs of files, as a run is watched and its best weights are chosen."""

from collections.abc import Sequence

import numpy as np
import torch

from model import transforms
from model.pranet import PraNet
from model.training.loop import autocast, normalise
from model.training.pairs import PairFile, read_image, read_mask

BATCH = 8


@torch.inference_mode()
def mean_dice(network: PraNet, files: Sequence[PairFile], device: torch.device, precision: str) -> float:
    """Mean Dice at threshold 0.5 and original size; an empty mask found empty counts 1."""
    scores = []
    for start in range(0, len(files), BATCH):
        chunk = files[start : start + BATCH]
        pictures = np.stack([transforms.to_input(read_image(file.image)) for file in chunk])
        with autocast(device, precision):
            logits = network(normalise(torch.from_numpy(pictures).to(device)))[:, 0].float().cpu().numpy()
        scores += [_dice(logit, read_mask(file.mask)) for logit, file in zip(logits, chunk, strict=True)]
    return float(np.mean(scores))


def _dice(logits: transforms.Floats, truth: transforms.Pixels) -> float:
    found = transforms.upsample(logits, truth.shape[1], truth.shape[0]) > 0  # probability above 0.5
    total = found.sum() + truth.sum()
    return float(2 * (found & (truth > 0)).sum() / total) if total else 1.0
