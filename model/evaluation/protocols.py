"""The two ways to evaluate a set of maps.

``fixed``: threshold 0.5 on plain probabilities; two empty masks match perfectly, one empty is a complete miss.
``published``: as the MICCAI evaluation of PraNet does: each map is stretched by its own minimum and maximum, overlap
is the mean over 256 thresholds, and the E-measure is the best threshold's, of the mean over pictures.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np

from model.evaluation import bootstrap
from model.evaluation.bootstrap import Estimate
from model.evaluation.metrics import overlap, saliency
from model.evaluation.metrics.boundary import boundary_error
from model.evaluation.metrics.overlap import Array, Mask
from model.training.validation import MISSED

Protocol = Literal["fixed", "published"]

THRESHOLD = 0.5
SPECK = 0.001  # of a picture; a smaller region is not counted as a polyp


@dataclass(frozen=True)
class Judgement:
    """The metrics of one picture; ``curve`` is the E-measure at each threshold of the ``published`` protocol.

    By either protocol, what is found, missed and counted is that of the mask at threshold 0.5.
    """

    name: str
    metrics: Mapping[str, float]
    found: float  # fraction of the picture that the mask covers
    polyp: bool = True  # whether there is one
    missed: bool = False  # whether the mask has next to nothing of it
    components: int = 0  # of the mask, specks left out
    curve: Array = field(default_factory=lambda: np.empty(0))


def judge(name: str, probability: Array, truth: Mask, protocol: Protocol) -> Judgement:
    """Judge a map float64 (H, W), 0..1, against the truth bool (H, W)."""
    mask = probability > THRESHOLD
    missed = bool(truth.any()) and float(overlap.fixed(overlap.counts(mask, truth))["dice"][0]) < MISSED
    seen = (float(mask.mean()), bool(truth.any()), missed, components(mask))
    if protocol == "fixed":
        return Judgement(name, _fixed(probability, truth), *seen)
    stretched = stretch(probability)
    count = overlap.curve((stretched * 255).astype(np.uint8), truth)
    metrics = {key: float(values.mean()) for key, values in overlap.published(count).items()}
    return Judgement(name, metrics | _maps(stretched, truth), *seen, saliency.e_measure(count))


def that_wrote(metrics: Collection[str]) -> Protocol:
    """Return the protocol that has these metrics of single pictures."""
    return "fixed" if "e_measure" in metrics else "published"


def components(mask: Mask) -> int:
    """Count the connected regions of a mask (H, W), but for specks."""
    _, _, boxes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    return int((boxes[1:, cv2.CC_STAT_AREA] >= SPECK * mask.size).sum())


def summarise(judgements: Sequence[Judgement]) -> dict[str, Estimate]:
    """Mean of each metric over the pictures, with its bootstrap interval."""
    names = judgements[0].metrics
    summary = {name: bootstrap.mean(np.array([j.metrics[name] for j in judgements])) for name in names}
    if len(judgements[0].curve):
        curves = np.stack([judgement.curve for judgement in judgements])  # (pictures, 256)
        best = int(curves.mean(axis=0).argmax())  # one threshold for the set, as published
        summary["e_measure"] = bootstrap.mean(curves[:, best])
    return summary


def stretch(probability: Array) -> Array:
    """Map a map's own minimum to 0 and its maximum to 1; a constant map stays as it is."""
    low, high = probability.min(), probability.max()
    return probability if low == high else np.asarray((probability - low) / (high - low))


def _fixed(probability: Array, truth: Mask) -> dict[str, float]:
    mask = probability > THRESHOLD
    count = overlap.counts(mask, truth)
    metrics = {name: float(values[0]) for name, values in overlap.fixed(count).items()} | _maps(probability, truth)
    if not mask.any() and not truth.any():
        metrics["weighted_f"] = 1.0
    metrics["e_measure"] = float(saliency.e_measure(count)[0])
    return metrics | {"boundary_error": boundary_error(mask, truth)}


def _maps(probability: Array, truth: Mask) -> dict[str, float]:
    return {
        "mae": float(np.abs(probability - truth).mean()),
        "s_measure": saliency.s_measure(probability, truth),
        "weighted_f": saliency.weighted_f_measure(probability, truth),
    }
