"""What each threshold finds and what it marks for nothing, so that a clinic can choose its operating point."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from torch import Tensor

from model.evaluation.maps import Maps
from model.evaluation.metrics.overlap import Array, Mask
from model.evaluation.protocols import SPECK
from model.presence import Presence
from model.training.data.pairs import PairFile, read_truth
from model.transforms import SIZE, Pixels, logit

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SMALL, LARGE = 0.01, 0.05  # of the picture: smaller polyps are small, larger ones large
LAST_BIAS = "ra2_conv4.bn.bias"  # of what is added to S4 for S3
COVERED = 0.1  # of a polyp, that a mask must cover to have found it


@dataclass
class Point:
    """Counts at one threshold; ``polyps`` are (found, all) by size."""

    threshold: float
    frames: list[bool] = field(default_factory=list)  # of each frame with a polyp: whether one was found
    polyps: dict[str, list[bool]] = field(default_factory=lambda: {"small": [], "medium": [], "large": []})
    false_polyps: list[int] = field(default_factory=list)  # of each frame: regions that touch no polyp
    clean: list[bool] = field(default_factory=list)  # of each frame without a polyp: whether there is such a region

    def row(self) -> dict[str, float | None]:
        """Return the shares found, and the false polyps a frame."""
        every = [hit for hits in self.polyps.values() for hit in hits]
        return {
            "threshold": self.threshold,
            "frames": _share(self.frames),
            "polyps": _share(every),
            **{size: _share(hits) for size, hits in self.polyps.items()},
            "false polyps a frame": _share(self.false_polyps),
            "clean frames marked": _share(self.clean),
        }


def points(files: Sequence[PairFile], answers: Maps) -> list[Point]:
    """Judge the maps of pictures at every threshold, at the size of the network's input."""
    found = [Point(threshold) for threshold in THRESHOLDS]
    for file in files:
        truth = cv2.resize(read_truth(file), (SIZE, SIZE), interpolation=cv2.INTER_NEAREST)
        labels, sizes = _regions(np.asarray(truth > 0))
        probability = answers.probability(file, SIZE, SIZE)
        for point in found:
            _judge(point, probability, labels, sizes)
    return found


def table(found: Sequence[Point]) -> str:
    """Lay the points out as a Markdown table."""
    rows = [point.row() for point in found]
    lines = ["| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"]
    lines += ["| " + " | ".join("-" if v is None else f"{v:.3g}" for v in row.values()) + " |" for row in rows]
    return "\n".join(lines)


def moved(state: Mapping[str, Tensor], presence: Presence, threshold: float) -> tuple[dict[str, Tensor], Presence]:
    """Shift the logits of S3 so that a mask at 0.5 is what it was at ``threshold``; the presence score stays."""
    shift = logit(threshold)
    state = {**state, LAST_BIAS: state[LAST_BIAS] - shift}
    return state, replace(presence, offset=presence.offset + presence.scale * shift)


def _judge(point: Point, probability: Array, labels: Pixels, sizes: Array) -> None:
    mask = probability > point.threshold
    covered = np.bincount(labels[mask], minlength=len(sizes) + 1)[1:]
    hits = covered >= COVERED * sizes * mask.size
    for size, hit in zip(sizes, hits.tolist(), strict=True):
        point.polyps["small" if size < SMALL else "large" if size > LARGE else "medium"].append(hit)
    false = sum(1 for region in _masks(mask) if not labels[region].any())
    point.false_polyps.append(false)
    if len(sizes):
        point.frames.append(bool(hits.any()))
    else:
        point.clean.append(false > 0)


def _regions(mask: Mask) -> tuple[Pixels, Array]:
    """Return the regions of a mask (H, W), specks included, numbered from 1, and their sizes as fractions of it."""
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    return np.asarray(labels), np.asarray(boxes[1:count, cv2.CC_STAT_AREA] / mask.size, np.float64)


def _masks(mask: Mask) -> Iterator[Mask]:
    labels, sizes = _regions(mask)
    for number, size in enumerate(sizes.tolist(), start=1):
        if size >= SPECK:
            yield labels == number


def _share(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
