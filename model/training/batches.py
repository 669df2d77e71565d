"""Pairs in memory -> augmented batches.

A batch is a pure function of the seed and the step, so that a resumed run sees what an unbroken one sees.
"""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.training import augment, crops
from model.training.erase import erase
from model.training.pairs import Pair
from model.training.recipe import Recipe


@dataclass(frozen=True)
class Batches:
    """Augmented batches of a list of pairs."""

    pairs: Sequence[Pair]
    recipe: Recipe

    def at(self, step: int, size: int, workers: Executor | None = None) -> tuple[Tensor, Tensor]:
        """Return RGB uint8 (B, 3, size, size) and masks float32 (B, 1, size, size) of 0 and 1 for a step."""
        positions = range(step * self.recipe.batch, (step + 1) * self.recipe.batch)
        run = map if workers is None else workers.map
        samples = list(run(lambda position: self._sample(position, size), positions))
        images = np.stack([sample.image for sample in samples]).transpose(0, 3, 1, 2)
        masks = np.stack([sample.mask for sample in samples])[:, None]
        return torch.from_numpy(images), torch.from_numpy(masks.astype(np.float32))

    def _sample(self, position: int, size: int) -> Pair:
        rng = np.random.default_rng((self.recipe.seed, 1, position))
        settings = self.recipe.augmentation
        pair = self.pairs[self._index(position)]
        donor = self.pairs[int(rng.integers(len(self.pairs)))] if rng.random() < settings.paste else None
        kind = rng.random()
        if kind < self.recipe.negatives:
            clean = crops.draw(pair.mask, rng)
            if clean is not None:
                pair, donor = Pair(clean.of(pair.image), clean.of(pair.mask)), None
        elif kind < self.recipe.negatives + self.recipe.erased:
            erased = erase(pair.image, pair.mask, rng)
            if erased is not None:
                pair, donor = Pair(erased, np.zeros_like(pair.mask)), None
        return Pair(*augment.augment(pair, donor, size, settings, rng))

    def _index(self, position: int) -> int:
        """Each epoch is a new permutation, so every pair is seen once an epoch."""
        epoch, place = divmod(position, len(self.pairs))
        order = np.random.default_rng((self.recipe.seed, 0, epoch)).permutation(len(self.pairs))
        return int(order[place])
