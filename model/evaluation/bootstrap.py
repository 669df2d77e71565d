"""Intervals of a mean over pictures, and of a rate."""

import math
from typing import NamedTuple

import numpy as np

from model.evaluation.metrics.overlap import Array

RESAMPLES = 10_000
DRAWN = 10_000_000  # values at once: 120 MB
CONFIDENCE = 0.95
Z = 1.959964  # normal quantile of the confidence


class Estimate(NamedTuple):
    """A value with the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def mean(values: Array, seed: int = 0) -> Estimate:
    """Mean of values (n,) with its percentile bootstrap interval over pictures.

    Of a difference between two methods on the same pictures this is the paired bootstrap.
    """
    rng, rows = np.random.default_rng(seed), max(1, DRAWN // len(values))
    means: list[Array] = []
    for start in range(0, RESAMPLES, rows):
        size = (min(rows, RESAMPLES - start), len(values))
        means.append(values[rng.integers(len(values), size=size, dtype=np.int32)].mean(axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(values.mean()), float(low), float(high))


def rate(hits: int, total: int, pictures: int | None = None) -> Estimate:
    """Share of hits with its Wilson interval, which stays sensible near 0 and 1.

    The interval is that of as many ``pictures``, if fewer: several crops of one tell hardly more than one of them.
    """
    if total == 0:
        return Estimate(math.nan, 0.0, 1.0)
    share = hits / total
    total = min(total, pictures or total)
    centre = (share + Z**2 / (2 * total)) / (1 + Z**2 / total)
    reach = Z / (1 + Z**2 / total) * math.sqrt(share * (1 - share) / total + Z**2 / (4 * total**2))
    return Estimate(share, max(0.0, centre - reach), min(1.0, centre + reach))
