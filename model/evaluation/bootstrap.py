"""Intervals of a mean over pictures, and of a rate."""

import math
from typing import NamedTuple

import numpy as np

from model.evaluation.metrics.overlap import Array

RESAMPLES = 10_000
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
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(values), size=(RESAMPLES, len(values)), dtype=np.int32)
    low, high = np.quantile(values[draws].mean(axis=1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(values.mean()), float(low), float(high))


def rate(hits: int, total: int) -> Estimate:
    """Share of hits with its Wilson interval, which stays sensible near 0 and 1."""
    if total == 0:
        return Estimate(math.nan, 0.0, 1.0)
    share = hits / total
    centre = (share + Z**2 / (2 * total)) / (1 + Z**2 / total)
    reach = Z / (1 + Z**2 / total) * math.sqrt(share * (1 - share) / total + Z**2 / (4 * total**2))
    return Estimate(share, max(0.0, centre - reach), min(1.0, centre + reach))
