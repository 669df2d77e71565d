"""Structure loss: weighted IoU + weighted binary cross-entropy (MICCAI 2020, section 2.3, after F3Net).

A pixel weighs more the more its surroundings differ from it, so edges count. The weights depend on the mask alone
and are computed once for all side outputs; the 31 x 31 average is separable.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from model.network.pranet import Maps

WINDOW = 31  # side of the neighbourhood, pixels
EMPHASIS = 5.0  # a pixel unlike all of its surroundings weighs 1 + EMPHASIS


def edge_weights(masks: Tensor) -> Tensor:
    """Return float32 (B, 1, H, W), 1..6, for masks (B, 1, H, W) of 0 and 1; outside of the picture counts as 0."""
    half = WINDOW // 2
    rows = F.avg_pool2d(masks, (WINDOW, 1), stride=1, padding=(half, 0))
    mean = F.avg_pool2d(rows, (1, WINDOW), stride=1, padding=(0, half))
    return 1 + EMPHASIS * (mean - masks).abs()


def structure_loss(logits: Tensor, masks: Tensor, weights: Tensor, empty_smoothing: float = 0.0) -> Tensor:
    """Weighted IoU + weighted BCE of one side output, a scalar; all arguments are (B, 1, H, W).

    The 1 in the IoU's quotient makes an empty prediction of an empty mask perfect; but it makes every false region
    there equally wrong, however small it becomes, and so teaches next to nothing. ``empty_smoothing``, a fraction of
    the picture, is added to it where the mask is empty.
    """
    logits = logits.float()
    entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    weighted_entropy = _total(weights * entropy) / _total(weights)
    probability = torch.sigmoid(logits)
    intersection = _total(probability * masks * weights)
    union = _total((probability + masks) * weights) - intersection
    empty = (_total(masks) == 0).float()
    smoothing = 1 + empty * (empty_smoothing * masks[0].numel())
    weighted_iou = 1 - (intersection + smoothing) / (union + smoothing)
    return (weighted_entropy + weighted_iou).mean()


def supervised_loss(maps: Maps, masks: Tensor, supervise: Sequence[str], empty_smoothing: float = 0.0) -> Tensor:
    """Sum of the structure losses of the named side outputs (deep supervision)."""
    weights = edge_weights(masks)
    losses = [structure_loss(getattr(maps, name), masks, weights, empty_smoothing) for name in supervise]
    return torch.stack(losses).sum()


def _total(values: Tensor) -> Tensor:
    return values.sum(dim=(1, 2, 3))
