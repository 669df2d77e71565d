#!/usr/bin/env bash
# Masks that MONAI's transforms for after the network are given.
#
# Guess:   a transform returns a new mask, and leaves alone the one that it gets.
# Truth:   KeepLargestConnectedComponent and FillHoles, also as dictionary transforms, write their result into the array or
#          tensor that they get, whether of NumPy or PyTorch. RemoveSmallObjects, AsDiscrete, LabelFilter and
#          LabelToContour do not. Their documentation says nothing of it.
# Versions: monai 1.6.1, torch 2.15.0, scikit-image 0.26.0, scipy 1.17.1, numpy 2.4.6
# Matters: who compares a mask with the cleaned one compares it with itself, and finds that cleaning changes nothing. A
#          second polyp is lost from the first answer, too. docs/training-and-evaluation.md says to give a copy.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q \
  monai==1.6.1 torch==2.15.0 scikit-image==0.26.0 scipy==1.17.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import warnings
from importlib.metadata import version

import numpy as np
import torch
from monai import transforms

warnings.simplefilter("ignore")
TRANSFORMS = {
    "KeepLargestConnectedComponent": transforms.KeepLargestConnectedComponent(),
    "KeepLargestConnectedComponentd": transforms.KeepLargestConnectedComponentd("mask"),
    "FillHoles": transforms.FillHoles(),
    "FillHolesd": transforms.FillHolesd("mask"),
    "RemoveSmallObjects": transforms.RemoveSmallObjects(min_size=10),
    "AsDiscrete": transforms.AsDiscrete(threshold=0.5),
    "LabelFilter": transforms.LabelFilter([2]),
    "LabelToContour": transforms.LabelToContour(),
}


def masks() -> np.ndarray:
    """Return two polyps, one of them with a hole, and a single pixel."""
    made = np.zeros((1, 64, 64), np.float32)
    made[0, 5:15, 5:15] = made[0, 30:50, 30:50] = made[0, 60, 60] = 1
    made[0, 35:40, 35:40] = 0
    return made


def look(name: str) -> bool:
    """Return whether the transform changes what it is given, be it an array or a tensor."""
    changed, transform = [], TRANSFORMS[name]
    for given in (masks(), torch.from_numpy(masks())):
        by_name = name.endswith("d") and name[:-1] in TRANSFORMS
        result = transform({"mask": given})["mask"] if by_name else transform(given)
        pixels = float(result.sum())
        changed.append(not np.array_equal(np.asarray(given), masks()))
    print(f"{name}: {int(masks().sum())} pixels become {pixels:g}; what was given changed: {changed[0]}")
    assert changed[0] == changed[1]
    return changed[0]


print(*(f"{name} {version(name)}" for name in ("monai", "torch", "scikit-image", "scipy", "numpy")))
sys.exit([look(name) for name in TRANSFORMS] != [True] * 4 + [False] * 4)
PYTHON
