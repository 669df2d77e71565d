"""Frames without a polyp: how often something is found on them, and how well a score tells them from others."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from PIL import Image

from model.evaluation import bootstrap, calibration
from model.evaluation.metrics.overlap import Mask
from model.pictures.reading import read_image
from model.presence import Presence, statistic
from model.training.augmentation import crops
from model.training.data.pairs import PairFile, truth_of
from model.training.validation import MARKED
from model.transforms import Floats

LEAST_AREA = 1 / 3  # of a picture, that a polyp-free crop must have
CROPS = 4  # at most, of a picture
TRIES = 500  # a large polyp leaves little room


def polyp_free_crops(files: Sequence[PairFile]) -> Iterator[tuple[str, Image.Image]]:
    """Yield the same random polyp-free crops of the pictures each time, under the names of their pictures."""
    for index, file in enumerate(files):
        rng, picture = np.random.default_rng((0, index)), read_image(file.image)
        mask = truth_of(file, *picture.size)
        for box in filter(None, [crops.draw(mask, rng, LEAST_AREA, TRIES) for _ in range(CROPS)]):
            yield file.name, picture.crop((box.x, box.y, box.x + box.width, box.y + box.height))


def false_positives(frames: Sequence[tuple[str, Floats]]) -> dict[str, Any]:
    """Describe the rate of clean frames of whose area more than 0.5 % is marked.

    Each is given by the picture that it is or is a part of, and logits (352, 352).
    """
    alarms = sum(float((logits > 0).mean()) > MARKED for _, logits in frames)
    pictures = len({name for name, _ in frames})
    return {"frames": len(frames), "false_positives": bootstrap.rate(alarms, len(frames), pictures)}


@dataclass
class PresenceTest:
    """Statistics of the presence score, whether there was a polyp, and of which picture each frame is a part."""

    statistics: list[float]
    labels: list[bool]
    pictures: list[str]

    @classmethod
    def of(cls, frames: Iterable[tuple[str, Floats, bool]]) -> "PresenceTest":
        """Take frames: the picture that each is or is a part of, logits (352, 352), and whether it shows a polyp."""
        names, logits, labels = zip(*frames, strict=True)
        return cls([statistic(each) for each in logits], list(labels), list(names))

    @property
    def decidable(self) -> bool:
        """Whether there are frames of both kinds, of two pictures or more."""
        return len(set(self.labels)) == 2 and len(set(self.pictures)) > 1

    def report(self, shipped: Presence | None) -> dict[str, Any]:
        """Judge the shipped calibration or, without one, a calibration cross-fitted over pictures."""
        statistics, labels = np.array(self.statistics), np.array(self.labels)
        if shipped is None:
            scores, threshold = calibration.cross_fitted(statistics, labels, self.pictures), 0.5
        else:
            scores = np.array([shipped.of_statistic(value) for value in self.statistics])
            threshold = shipped.threshold
        return {
            "calibration": "cross-fitted" if shipped is None else "shipped",
            "auroc": self._auroc(),
            "threshold": threshold,
            "sensitivity": self._rate(scores >= threshold, labels),
            "false_positive_rate": self._rate(scores >= threshold, ~labels),
            "calibration_error": calibration.calibration_error(scores, labels),
        }

    def fit(self) -> Presence:
        """Fit the calibration to all of these frames."""
        return calibration.fit(np.array(self.statistics), np.array(self.labels))

    def _auroc(self) -> bootstrap.Estimate:
        """Return it with an interval over pictures, with all of the frames of each."""
        statistics, labels = np.array(self.statistics), np.array(self.labels)
        frames: dict[str, list[int]] = defaultdict(list)
        for index, name in enumerate(self.pictures):
            frames[name].append(index)
        pictures, rng = list(frames.values()), np.random.default_rng(0)
        values = []
        for _ in range(1000):
            draw = list(chain.from_iterable(pictures[i] for i in rng.integers(len(pictures), size=len(pictures))))
            if 0 < labels[draw].sum() < len(draw):
                values.append(calibration.auroc(statistics[draw], labels[draw]))
        low, high = np.quantile(values, [0.025, 0.975])
        return bootstrap.Estimate(calibration.auroc(statistics, labels), float(low), float(high))

    def _rate(self, hits: Mask, among: Mask) -> bootstrap.Estimate:
        pictures = {name for name, inside in zip(self.pictures, among, strict=True) if inside}
        return bootstrap.rate(int(hits[among].sum()), int(among.sum()), len(pictures))
