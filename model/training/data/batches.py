"""Pairs in memory -> augmented batches.

A batch is a pure function of the seed and the step, so that a resumed run sees what an unbroken one sees.
"""

import multiprocessing
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from model.cores import usable_cores
from model.training.augmentation import augment, crops, pasting, stool
from model.training.augmentation.erase import erase
from model.training.data.pairs import DatasetError, Pair
from model.training.data.sampler import Sampler
from model.training.recipe import Recipe

PICTURES_TRIED = 1000
SMALL_POLYP = 0.025  # of the picture, see ``Recipe.small_repeats``

Order = tuple[int, int]  # a step and the side of its input, pixels


@dataclass(frozen=True)
class Pool:
    """The pictures of one source in memory; ``weight`` is its share of the samples, relative to other sources."""

    pairs: Sequence[Pair]
    weight: float = 1.0


@dataclass(frozen=True)
class Batches(Dataset[tuple[Tensor, Tensor]]):
    """Augmented batches of the pictures of several sources."""

    pools: Sequence[Pool]
    recipe: Recipe

    @property
    def pictures(self) -> int:
        """Number of pictures of all sources."""
        return sum(len(pool.pairs) for pool in self.pools)

    def __getitem__(self, order: Order) -> tuple[Tensor, Tensor]:
        """Return RGB uint8 (B, 3, size, size) and masks uint8 (B, 1, size, size) of 0 and 1 for a step and a size.

        B is the recipe's ``batch`` and, after these, its ``candidates``.
        """
        step, size = order
        samples = [self._sample(position, size) for position in _range(step, self.recipe.batch)]
        samples += [self._candidate(position, size) for position in _range(step, self.recipe.candidates)]
        images = np.stack([sample.image for sample in samples]).transpose(0, 3, 1, 2)
        masks = np.stack([sample.mask for sample in samples])[:, None]
        return torch.from_numpy(images), torch.from_numpy(masks)

    def ordered(self, orders: Iterable[Order], beside_gpu: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of ``orders``, made ahead.

        A GPU takes more than one interpreter can make, so processes make them. A CPU that trains has no core to spare
        for these, and whoever trains on one may hold what does not bear a fork.
        """
        return self._by_processes(orders) if beside_gpu else self._by_threads(orders)

    def _by_threads(self, orders: Iterable[Order]) -> Iterator[tuple[Tensor, Tensor]]:
        threads = max(1, usable_cores() // 2)
        waiting: deque[Future[tuple[Tensor, Tensor]]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            for order in orders:
                waiting.append(pool.submit(self.__getitem__, order))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _by_processes(self, orders: Iterable[Order]) -> Iterator[tuple[Tensor, Tensor]]:
        loader = DataLoader(
            self,
            batch_size=None,
            sampler=orders,
            num_workers=max(1, usable_cores() - 2),
            worker_init_fn=_single_threaded,
            multiprocessing_context=multiprocessing.get_context("fork"),  # which shares the pairs; others copy them
            pin_memory=torch.cuda.is_available(),
        )
        with warnings.catch_warnings():
            # Of a fork in a process with threads. The workers touch none of what these may hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            yield from loader

    def _sample(self, position: int, size: int) -> Pair:
        rng = np.random.default_rng((self.recipe.seed, 1, position))
        settings = self.recipe.augmentation
        source, index = self._sampler.draw(position)
        pair = self._drawn[source][index]
        donor = self._donor(rng)
        kind = rng.random()
        if kind < self.recipe.negatives:
            clean = _polyp_free(pair, rng)
            if clean is not None:
                pair, donor = clean, None
        elif kind < self.recipe.negatives + self.recipe.erased:
            erased = erase(pair.image, pair.mask, rng)
            if erased is not None:
                pair, donor = Pair(erased, np.zeros_like(pair.mask)), None
        return Pair(*augment.augment(pair, donor, size, settings, rng))

    def _donor(self, rng: np.random.Generator) -> pasting.Donor | None:
        """Return what is pasted into a sample, if anything: any picture's polyp, its shape as a decoy, or stool."""
        settings = self.recipe.augmentation
        kind = rng.random()
        if kind < settings.paste:
            return pasting.Donor(*self._any(rng))
        if kind < settings.paste + settings.decoy and self._clean:
            clean = self._clean[int(rng.integers(len(self._clean)))]
            return pasting.decoy(clean.image, self._any(rng).mask)
        if settings.paste + settings.decoy <= kind < settings.paste + settings.decoy + settings.stool and self._stool:
            return self._stool[int(rng.integers(len(self._stool)))]
        return None

    def _candidate(self, position: int, size: int) -> Pair:
        """Return a polyp-free crop of one of the pictures that leave room for it."""
        rng = np.random.default_rng((self.recipe.seed, 2, position))
        for _ in range(PICTURES_TRIED):
            clean = _polyp_free(self._any(rng), rng)
            if clean is not None:
                return Pair(*augment.augment(clean, None, size, self.recipe.augmentation, rng))
        raise DatasetError("no picture leaves room for a polyp-free crop; set candidates and mined to 0 in the recipe")

    def _any(self, rng: np.random.Generator) -> Pair:
        """Return any picture, of large and small sources alike as many as they have."""
        place = int(rng.integers(self.pictures))
        for pool in self.pools:
            if place < len(pool.pairs):
                break
            place -= len(pool.pairs)
        return pool.pairs[place]

    @cached_property
    def _clean(self) -> list[Pair]:
        """Pictures without a polyp."""
        return [pair for pool in self.pools for pair in pool.pairs if not pair.mask.any()]

    @cached_property
    def _stool(self) -> list[pasting.Donor]:
        """Lumps of stool in the pictures without a polyp."""
        return [pasting.stool(pair.image, lump) for pair in self._clean for lump in stool.lumps(pair.image)]

    @cached_property
    def _drawn(self) -> list[list[Pair]]:
        """Pictures of each source as the sampler counts them: those of small polyps several times."""
        more = self.recipe.small_repeats - 1
        return [
            [*pool.pairs, *more * [pair for pair in pool.pairs if 0 < pair.mask.mean() < SMALL_POLYP]]
            for pool in self.pools
        ]

    @cached_property
    def _sampler(self) -> Sampler:
        sizes = [len(pairs) for pairs in self._drawn]
        return Sampler(sizes, [pool.weight for pool in self.pools], self.recipe.seed)


def _polyp_free(pair: Pair, rng: np.random.Generator) -> Pair | None:
    """Crop a pair to where there is no polyp; None if that leaves too little."""
    box = crops.draw(pair.mask, rng)
    return None if box is None else Pair(box.of(pair.image), box.of(pair.mask))


def _range(step: int, count: int) -> range:
    return range(step * count, (step + 1) * count)


def _single_threaded(worker: int) -> None:
    cv2.setNumThreads(0)  # the workers are many; PyTorch sees to its own threads
