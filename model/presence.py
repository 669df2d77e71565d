"""A calibrated score for "is there a polyp in this frame at all", read off the logits of the segmentation.

The statistic is the mean of the largest half per cent of a frame's logits: how sure the network is of its surest
spot. A logistic function with two numbers, fitted after training and kept in the weights file, makes it a
probability (Platt scaling).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from model.transforms import Floats

TOP_SHARE = 0.005  # of the logits of a frame
SAMPLING = 16  # one logit in so many tells where the largest begin
KEY = "presence"  # of the metadata of a weights file


@dataclass(frozen=True)
class Presence:
    """Calibration of the score: probability = logistic(``scale`` * statistic + ``offset``)."""

    scale: float
    offset: float
    threshold: float = 0.5  # the operating point: at or above it a frame is said to hold a polyp

    def score(self, logits: Floats) -> float:
        """Probability (0..1) that the frame with these logits (H, W) holds a polyp."""
        return self.of_statistic(statistic(logits))

    def of_statistic(self, value: float) -> float:
        """Probability (0..1) of a polyp for a value of the statistic."""
        return logistic(self.scale * value + self.offset)

    def metadata(self) -> dict[str, str]:
        """Return the entry that a weights file keeps."""
        return {KEY: f"{self.scale:.6g},{self.offset:.6g},{self.threshold:.6g}"}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "Presence | None":
        """Read the entry of a weights file; None if it has none.

        Raises:
            ValueError: the entry is not three finite numbers.

        """
        entry = metadata.get(KEY)
        if entry is None:
            return None
        scale, offset, threshold = (float(number) for number in entry.split(","))
        if not all(map(math.isfinite, (scale, offset, threshold))):
            raise ValueError(f"{entry} is not finite")
        return cls(scale, offset, threshold)


def statistic(logits: Floats) -> float:
    """Mean of the largest half per cent of logits (H, W)."""
    top = max(1, round(TOP_SHARE * logits.size))
    likely = _likely(logits.ravel(), top)
    return float(np.partition(likely, likely.size - top)[-top:].mean(dtype=np.float64))


def _likely(values: Floats, top: int) -> Floats:
    """Return some of the values (N), the ``top`` largest among them: to choose from few takes an eighth of the time."""
    sample = values[::SAMPLING]
    above = min(sample.size, 2 * top // SAMPLING + 1)  # twice as many as there should be
    found = values[values >= np.partition(sample, -above)[-above]]
    return found if found.size >= top else values


def logistic(x: float) -> float:
    """Logistic function, without overflow."""
    return 0.5 + 0.5 * math.tanh(0.5 * x)
