#!/usr/bin/env bash
# Polyps that a network misses, in MONAI's Hausdorff distance at the 95th percentile.
#
# Guess:   if one of two masks is empty, their distance is infinite or undefined; so a network that misses polyps, or
#          marks some where none are, cannot get a better mean distance than one that finds them.
# Truth:   without a percentile the distance is infinite, and so is the mean. With percentile=95, the usual one, it is nan,
#          and aggregate() leaves it out. So a polyp that is found poorly makes the mean worse, one that is missed does
#          not, nor does a false mask on a frame without a polyp. If all are missed, the mean is 0.0, the best that there
#          is. A warning speaks of "nan/inf distance"; the result says nothing. DiceMetric counts a missed polyp as 0, but
#          leaves out each frame without a polyp, also if it has a false mask.
# Versions: monai 1.6.1, torch 2.15.0, scipy 1.17.1, numpy 2.4.6
# Matters: papers report this distance beside Dice. Of two networks, the one that is silent on difficult polyps wins.
#          docs/training-and-evaluation.md says to count what was left out, with get_not_nans=True.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q monai==1.6.1 torch==2.15.0 scipy==1.17.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import warnings
from importlib.metadata import version

import torch
from monai.metrics import DiceMetric, HausdorffDistanceMetric

warnings.simplefilter("ignore")
SIDE = 20


def polyp(column: int | None) -> torch.Tensor:
    """Return a mask with a square from this column on, or without any."""
    mask = torch.zeros(1, 1, 96, 96)
    if column is not None:
        mask[..., 30 : 30 + SIDE, column : column + SIDE] = 1
    return mask


def means(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> list[float]:
    """Return the mean Hausdorff distance, the one at the 95th percentile, and the mean Dice."""
    predicted, truth = (torch.cat(each) for each in zip(*pairs, strict=True))
    made = HausdorffDistanceMetric(), HausdorffDistanceMetric(percentile=95), DiceMetric()
    for metric in made:
        metric(y_pred=predicted, y=truth)
    return [round(metric.aggregate().item(), 3) for metric in made]


print(*(f"{name} {version(name)}" for name in ("monai", "torch", "scipy", "numpy")))
good, poor = (polyp(31), polyp(30)), (polyp(50), polyp(30))
missed, invented, none = (polyp(None), polyp(30)), (polyp(30), polyp(None)), (polyp(None), polyp(None))
cases = {
    "one found well, one poorly": [good, poor],
    "one found well, one missed": [good, missed],
    "one found well, one invented": [good, invented],
    "one found well, one frame without polyp": [good, none],
    "all missed": [missed, missed],
}
found = {name: means(pairs) for name, pairs in cases.items()}
for name, (whole, at_95, dice) in found.items():
    print(f"{name}: Hausdorff distance {whole}, at the 95th percentile {at_95}; Dice {dice}")
infinite = float("inf")
sys.exit(
    list(found.values())
    != [[10.5, 10.5, 0.475], [infinite, 1, 0.475], [infinite, 1, 0.95], [1, 1, 0.95], [infinite, 0, 0]]
)
PYTHON
