"""Structure loss: weighted IoU + weighted binary cross-entropy (MICCAI 2020, section 2.3, after F3Net).

Beside it, a recipe can ask for the presence loss: the structure loss of a small false region is small, however sure the
network is of it.

A pixel weighs more the more its surroundings differ from it, so edges count. The weights depend on the mask alone
and are computed once for all side outputs; the 31 x 31 average is separable.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from model.network.pranet import Maps
from model.presence import TOP_SHARE

WINDOW = 31  # side of the neighbourhood, pixels
EMPHASIS = 5.0  # a pixel unlike all of its surroundings weighs 1 + EMPHASIS
VISIBLE = 2e-4  # of the picture: a smaller remainder of a polyp at the edge of a sample is not one to see


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


def supervised_loss(
    maps: Maps, masks: Tensor, supervise: Sequence[str], empty_smoothing: float = 0.0, presence_weight: float = 0.0
) -> Tensor:
    """Sum of the losses of the named side outputs (deep supervision): structure, and presence with a weight."""
    weights = edge_weights(masks)
    outputs = [getattr(maps, name) for name in supervise]
    losses = [structure_loss(logits, masks, weights, empty_smoothing) for logits in outputs]
    if presence_weight:
        losses += [presence_weight * presence_loss(logits, masks) for logits in outputs]
    return torch.stack(losses).sum()


def presence_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the cross-entropy of "does this picture show a polyp", a scalar; both arguments are (B, 1, H, W).

    As in learning from bags of instances (max-pooling MIL), the logit of a picture is the mean of its largest logits,
    as many as the presence score takes (``model.presence``). Where there is a polyp, those inside of it count, so that
    marking another place is no answer.
    """
    values, truth = logits.float().flatten(1), masks.flatten(1) > 0
    area = truth.sum(dim=1)
    present = area > VISIBLE * truth.shape[1]
    top = max(1, round(TOP_SHARE * truth.shape[1]))
    largest = values.masked_fill(present[:, None] & ~truth, -torch.inf).topk(top, dim=1).values
    counted = torch.where(present, area.clamp(max=top), top)[:, None]
    among = torch.arange(top, device=values.device) < counted
    mean = torch.where(among, largest, 0.0).sum(dim=1) / counted[:, 0]
    entropy = F.binary_cross_entropy_with_logits(mean, present.float(), reduction="none")
    return (entropy * (present | (area == 0))).mean()


def _total(values: Tensor) -> Tensor:
    return values.sum(dim=(1, 2, 3))
