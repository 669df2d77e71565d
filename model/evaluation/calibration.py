"""Ranking and calibration of scores: AUROC, expected calibration error, Platt scaling."""

from dataclasses import dataclass, field

import numpy as np
from scipy.stats import rankdata

from model.evaluation.metrics.overlap import Array, Mask
from model.presence import Presence

BINS = 15  # of equal width, over 0..1
ITERATIONS = 50
RIDGE = 1e-3  # keeps the slope finite where the classes separate perfectly
FOLDS = 5


def auroc(scores: Array, labels: Mask) -> float:
    """Probability that a positive scores above a negative, ties counting half (Mann-Whitney)."""
    positives, negatives = int(labels.sum()), int((~labels).sum())
    ranks = rankdata(scores)[labels].sum()
    return float((ranks - positives * (positives + 1) / 2) / (positives * negatives))


def fit(statistics: Array, labels: Mask) -> Presence:
    """Fit the logistic calibration of a statistic (n,) to labels (n,) by Newton's method."""
    spread = float(statistics.std()) or 1.0
    inputs = np.stack([statistics / spread, np.ones_like(statistics)], axis=1)  # (n, 2)
    # Platt's smoothed targets: as if one more of each class had been seen
    targets = np.where(labels, (labels.sum() + 1) / (labels.sum() + 2), 1 / ((~labels).sum() + 2))
    weights = np.zeros(2)
    for _ in range(ITERATIONS):
        probability = _logistic(inputs @ weights)
        gradient = inputs.T @ (probability - targets) + RIDGE * weights
        curvature = (inputs * (probability * (1 - probability))[:, None]).T @ inputs + RIDGE * np.eye(2)
        weights -= np.linalg.solve(curvature, gradient)
    return Presence(float(weights[0] / spread), float(weights[1]))


def cross_fitted(statistics: Array, labels: Mask, pictures: list[str]) -> Array:
    """Calibrated scores (n,), each from a fit that saw nothing of its picture."""
    names = sorted(set(pictures))
    fold_of = dict(zip(names, np.random.default_rng(0).permutation(len(names)) % FOLDS, strict=True))
    folds = np.array([fold_of[name] for name in pictures])
    scores = np.empty_like(statistics)
    for fold in range(FOLDS):
        inside = folds == fold
        presence = fit(statistics[~inside], labels[~inside])
        scores[inside] = _logistic(presence.scale * statistics[inside] + presence.offset)
    return scores


@dataclass
class Reliability:
    """Predicted probability against observed frequency, in 15 bins; weights of a picture's pixels sum to one."""

    weight: Array = field(default_factory=lambda: np.zeros(BINS))
    predicted: Array = field(default_factory=lambda: np.zeros(BINS))
    observed: Array = field(default_factory=lambda: np.zeros(BINS))

    def add(self, probability: Array, truth: Mask) -> None:
        """Add the probabilities and the truth of one picture, or of all frames; any shape."""
        p, t = probability.ravel(), truth.ravel()
        bins = np.minimum((p * BINS).astype(np.intp), BINS - 1)
        self.weight += np.bincount(bins, minlength=BINS) / p.size
        self.predicted += np.bincount(bins, p, minlength=BINS) / p.size
        self.observed += np.bincount(bins, t, minlength=BINS) / p.size

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of predicted and observed, 0..1."""
        return float(np.abs(self.predicted - self.observed).sum() / self.weight.sum())


def calibration_error(scores: Array, labels: Mask) -> float:
    """Return the expected calibration error of scores (n,) for labels (n,)."""
    reliability = Reliability()
    reliability.add(scores, labels)
    return reliability.error


def _logistic(x: Array) -> Array:
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * x))
