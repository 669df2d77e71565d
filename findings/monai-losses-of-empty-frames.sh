#!/usr/bin/env bash
# Frames without a polyp in MONAI's losses for masks, with one channel and a sigmoid.
#
# Guess:   on a frame without a polyp, each loss is small for a network that marks nothing, and larger the more it marks.
# Truth:   GeneralizedDiceLoss is 0.0 whatever is marked, with a gradient of exactly 0: the weight of a class without pixels
#          becomes that of the largest other class, and there is none. In a batch, only the frames with polyps train;
#          batch=True mends that, w_type="uniform" does not. HausdorffDTLoss is large for a false polyp, but 0.0 for a
#          mask over the whole frame, as it is for none. DiceLoss is 1.0 for both. DiceFocalLoss, DiceCELoss and
#          GeneralizedDiceFocalLoss grow with what is marked, through their second term.
# Versions: monai 1.6.1, torch 2.15.0, scipy 1.17.1, numpy 2.4.6
# Matters: most frames of a colonoscopy show no polyp, and are added to a training set so that a network learns to be silent
#          on folds and bubbles. With these losses it does not. docs/training-and-evaluation.md says so.
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
from monai.losses import DiceFocalLoss, DiceLoss, GeneralizedDiceLoss, HausdorffDTLoss

warnings.simplefilter("ignore")
nothing = torch.zeros(1, 1, 64, 64)
polyp = nothing.clone()
polyp[..., 20:40, 20:40] = 1
everything = nothing + 1


def cost(loss: torch.nn.Module, marked: torch.Tensor, truth: torch.Tensor) -> tuple[float, float]:
    """Return the loss of a network that is sure of these masks, and its largest gradient."""
    logits = ((2 * marked - 1) * 6).requires_grad_()
    value = loss(logits, truth)
    value.backward()
    return round(value.item(), 3), logits.grad.abs().max().item()


def look(name: str, loss: torch.nn.Module) -> list[tuple[float, float]]:
    found = [cost(loss, marked, nothing) for marked in (nothing, polyp, everything)]
    print(f"{name}, a frame without polyp: loss, gradient if nothing, a polyp, everything is marked: {found}")
    return found


print(*(f"{name} {version(name)}" for name in ("monai", "torch", "scipy", "numpy")))
generalized = look("GeneralizedDiceLoss", GeneralizedDiceLoss(sigmoid=True))
uniform = look("GeneralizedDiceLoss, uniform", GeneralizedDiceLoss(sigmoid=True, w_type="uniform"))
distance = look("HausdorffDTLoss", HausdorffDTLoss(sigmoid=True))
dice = look("DiceLoss", DiceLoss(sigmoid=True))
focal = look("DiceFocalLoss", DiceFocalLoss(sigmoid=True))
found, truth = torch.cat([polyp, polyp]), torch.cat([polyp, nothing])
silent, false = (
    [cost(GeneralizedDiceLoss(sigmoid=True, batch=batch), marked, truth)[0] for batch in (False, True)]
    for marked in (truth, found)
)
print(f"GeneralizedDiceLoss beside a frame with its polyp, without and with batch=True: silent {silent}, false {false}")
right = generalized == [(0, 0)] * 3
right &= [value for value, _ in uniform] == [1] * 3
right &= distance[0] == distance[2] == (0, 0) and distance[1][0] > 1.5
right &= [value for value, _ in dice] == [1] * 3
right &= focal[0][0] < focal[1][0] - 0.5 < focal[2][0] - 5
right &= silent[0] == false[0] and silent[1] < false[1] - 0.3
sys.exit(not right)
PYTHON
