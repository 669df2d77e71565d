"""How much of a predicted mask and of the true one coincide, from counts of pixels.

Two conventions for what a quotient of nothing is: ``fixed`` calls two empty masks a perfect match, and an empty one
against another a complete miss; ``published`` calls both a miss, as the MICCAI evaluation does.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model.transforms import Pixels

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

LEVELS = 256  # thresholds 0/255, 1/255 ... 255/255 of the published evaluation


class Counts(NamedTuple):
    """Pixels of true positives, false positives, false negatives and true negatives, one of each per threshold."""

    tp: Array
    fp: Array
    fn: Array
    tn: Array


def counts(mask: Mask, truth: Mask) -> Counts:
    """Count the pixels of one mask (H, W) against the truth (H, W); arrays of shape (1,)."""
    tp, positive, true = float((mask & truth).sum()), float(mask.sum()), float(truth.sum())
    parts = (tp, positive - tp, true - tp, mask.size - positive - true + tp)
    return Counts(*(np.array([part]) for part in parts))


def curve(levels: Pixels, truth: Mask) -> Counts:
    """Count at all 256 thresholds, ascending: a pixel is positive where ``levels`` (H, W) is at least that level."""
    inside = _at_least(levels[truth])
    outside = _at_least(levels[~truth])
    return Counts(inside, outside, truth.sum() - inside, (~truth).sum() - outside)


def fixed(count: Counts) -> dict[str, Array]:
    """Overlap metrics; both masks empty = 1, one empty = 0."""
    perfect = (count.tp + count.fp + count.fn) == 0
    metrics = published(count)
    return {name: np.where(perfect, 1.0, values) for name, values in metrics.items()}


def published(count: Counts) -> dict[str, Array]:
    """Overlap metrics; whatever has no true positive is 0, except the accuracy."""
    tp, fp, fn, tn = count
    return {
        "jaccard": _quotient(tp, tp + fp + fn),
        "dice": _quotient(2 * tp, 2 * tp + fp + fn),
        "recall": _quotient(tp, tp + fn),
        "precision": _quotient(tp, tp + fp),
        "f2": _quotient(5 * tp, 5 * tp + fp + 4 * fn),
        "accuracy": _quotient(tp + tn, tp + fp + fn + tn),
    }


def _at_least(levels: Pixels) -> Array:
    histogram = np.bincount(levels, minlength=LEVELS)
    return np.cumsum(histogram[::-1])[::-1].astype(np.float64)


def _quotient(numerator: Array, denominator: Array) -> Array:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
