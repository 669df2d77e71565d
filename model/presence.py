"""Calibrated probability that a frame shows a polyp, computed from the logits of the segmentation.

The statistic is the mean of the largest 0.5 % of a frame's logits: the network's confidence where it is most
confident. A logistic function with two parameters turns it into a probability (Platt scaling). They are fitted after
training and stored in the weights file.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from model.transforms import Floats

TOP_SHARE = 0.005  # of a frame's logits, which are averaged
SAMPLING = 16  # every 16th logit is enough to estimate where the largest begin
KEY = "presence"  # in the metadata of a weights file


@dataclass(frozen=True)
class Presence:
    """Calibration: probability = logistic(``scale`` * statistic + ``offset``)."""

    scale: float
    offset: float
    threshold: float = 0.5  # operating point: a probability at or above it means that a polyp is present

    def score(self, logits: Floats) -> float:
        """Return the probability (0..1) that the frame with these float32 logits (H, W) shows a polyp."""
        return self.of_statistic(statistic(logits))

    def of_statistic(self, value: float) -> float:
        """Return the probability (0..1) of a polyp for a value of ``statistic``."""
        return logistic(self.scale * value + self.offset)

    def metadata(self) -> dict[str, str]:
        """Return this calibration as an entry for the metadata of a weights file."""
        return {KEY: f"{self.scale:.6g},{self.offset:.6g},{self.threshold:.6g}"}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "Presence | None":
        """Read the calibration from the metadata of a weights file; None if there is none.

        Raises:
            ValueError: the entry is not three finite numbers, separated by commas.

        """
        entry = metadata.get(KEY)
        if entry is None:
            return None
        scale, offset, threshold = (float(number) for number in entry.split(","))
        if not all(map(math.isfinite, (scale, offset, threshold))):
            raise ValueError(f"{entry} has a number that is not finite")
        return cls(scale, offset, threshold)


def statistic(logits: Floats) -> float:
    """Return the mean of the largest 0.5 % of float32 logits (H, W), at least one of them."""
    top = max(1, round(TOP_SHARE * logits.size))
    likely = _likely(logits.ravel(), top)
    return float(np.partition(likely, likely.size - top)[-top:].mean(dtype=np.float64))


def _likely(values: Floats, top: int) -> Floats:
    """Return a part of the values (N) that includes the ``top`` largest: searching it takes an eighth of the time."""
    sample = values[::SAMPLING]
    above = min(sample.size, 2 * top // SAMPLING + 1)  # twice the expected number, to include all of the largest
    found = values[values >= np.partition(sample, -above)[-above]]
    return found if found.size >= top else values


def logistic(x: float) -> float:
    """Return 1 / (1 + exp(-x)), without overflow."""
    return 0.5 + 0.5 * math.tanh(0.5 * x)
