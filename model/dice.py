"""Dice coefficient of two masks: the measure of overlap that training, evaluation and benchmarks share."""

import numpy as np

from model.transforms import Pixels


def dice(one: Pixels, other: Pixels) -> float:
    """Return 2 |A and B| / (|A| + |B|) of two masks (H, W) that are nonzero inside; 1.0 if both are empty."""
    total = np.count_nonzero(one) + np.count_nonzero(other)
    return 2 * np.count_nonzero((one > 0) & (other > 0)) / total if total else 1.0
