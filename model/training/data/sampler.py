"""Which picture each sample of a run shows: a hospital has the share it is given, however many its pictures are."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

BLOCK = 100  # samples, of which each source has its share; where within, is drawn


class Sampler:
    """Maps the position of a sample in a run to a source and a picture of it, by the seed alone.

    Each picture of a source is drawn once before any is drawn again.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int) -> None:
        """``sizes`` are the numbers of pictures of the sources, ``weights`` their shares of the samples."""
        self.sizes, self.weights, self.seed = sizes, weights, seed

    def draw(self, position: int) -> tuple[int, int]:
        """Return the index of a source and of a picture of it."""
        block, place = divmod(position, BLOCK)
        order = self._order(block)
        source = int(order[place])
        seen = block * int(self._quotas[source]) + int((order[:place] == source).sum())
        epoch, index = divmod(seen, self.sizes[source])
        seed = (self.seed, 0, epoch) if len(self.sizes) == 1 else (self.seed, 0, epoch, source)
        return source, int(np.random.default_rng(seed).permutation(self.sizes[source])[index])

    def _order(self, block: int) -> npt.NDArray[np.int64]:
        members = np.repeat(np.arange(len(self.sizes)), self._quotas)
        return np.asarray(np.random.default_rng((self.seed, 3, block)).permutation(members))

    @cached_property
    def _quotas(self) -> npt.NDArray[np.int64]:
        """Samples of each source in a block, by largest remainders; each source gets at least one."""
        shares = BLOCK * np.array(self.weights) / sum(self.weights)
        quotas = np.maximum(1, np.floor(shares)).astype(np.int64)
        while quotas.sum() != BLOCK:
            step = 1 if quotas.sum() < BLOCK else -1
            gap = step * (shares - quotas) - (0 if step > 0 else 1e9 * (quotas == 1))
            quotas[int(np.argmax(gap))] += step
        return quotas
