"""Knowledge distillation (Hinton et al., 2015): PraNet learns to answer as teachers do on the same augmented pictures.

Its backbone learns the features of their pyramids as well (hints: Romero et al., ICLR 2015): the teachers have seen
more than a million other pictures, and what tells a polyp from a fold elsewhere is more than the masks say.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.normalisation import normalise
from model.network.pranet import PraNet
from model.training.loss import edge_weights, supervised_loss
from model.training.objective import autocast
from model.training.recipe import Recipe
from model.training.teacher.network import CHANNELS, Teacher

BACKBONE = (512, 1024, 2048)  # channels of PraNet's backbone at strides 8, 16 and 32
LEVELS = slice(1, 4)  # of a teacher's pyramid: those of the same strides
SEEN = 0.5  # highest probability below which a teacher sees no polyp


class Distillation(nn.Module):
    """The loss of annotations, of the teachers' mean map, and of their features; the projections of the hints learn."""

    def __init__(self, recipe: Recipe, teachers: Sequence[Teacher]) -> None:
        super().__init__()
        self.recipe = recipe
        self.hints = nn.ModuleList([nn.Conv2d(width, CHANNELS * len(teachers), 1) for width in BACKBONE])
        # In a tuple they are no part of this module: they do not learn, and the state of a run is without them.
        self._teachers = tuple(teacher.requires_grad_(False).eval() for teacher in teachers)

    def to_device(self, device: torch.device) -> "Distillation":
        """Move the projections and the teachers to a device."""
        for teacher in self._teachers:
            teacher.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self.to(device)

    def forward(self, network: PraNet, images: Tensor, masks: Tensor) -> Tensor:
        """Return the loss, a scalar, on RGB uint8 (B, 3, S, S) and masks float32 (B, 1, S, S) of 0 and 1."""
        recipe = self.recipe
        with autocast(images.device, recipe.precision):
            inputs = normalise(images)
            logits, levels = self._taught(inputs)
            features = network.resnet(inputs)
            maps = network.maps_of(features)
            projected = [hint(feature) for hint, feature in zip(self.hints, features, strict=True)]
        weights, smoothing = edge_weights(masks), recipe.empty_smoothing
        soft = torch.stack(
            [soft_loss(getattr(maps, name), logits, weights, smoothing) for name in recipe.supervise]
        ).sum()
        hard = supervised_loss(maps, masks, recipe.supervise, smoothing, recipe.presence_weight)
        distance = torch.stack([_distance(*each) for each in zip(projected, levels, strict=True)]).sum()
        return (1 - recipe.teacher_share) * hard + recipe.teacher_share * soft + recipe.hint_weight * distance

    @torch.no_grad()
    def _taught(self, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the teachers' mean logits (B, 1, S, S), and their features side by side at strides 8, 16 and 32."""
        answers = [teacher.taught(inputs) for teacher in self._teachers]
        logits = torch.stack([logits for logits, _ in answers]).mean(dim=0)
        pyramids = [pyramid[LEVELS] for _, pyramid in answers]
        return logits, [torch.cat(level, dim=1) for level in zip(*pyramids, strict=True)]


def soft_loss(logits: Tensor, taught: Tensor, weights: Tensor, empty_smoothing: float = 0.0) -> Tensor:
    """Return the structure loss against a teacher's probabilities, a scalar, zero where both agree.

    It is the weighted divergence of Kullback and Leibler of each pixel plus a weighted IoU of probabilities, whose
    union has squares so that it is 1 for equal maps. ``logits``, ``taught`` and ``weights`` are (B, 1, H, W);
    ``empty_smoothing`` is that of ``loss.structure_loss``, where the teacher sees no polyp.
    """
    logits, taught = logits.float(), taught.float()
    target, probability = torch.sigmoid(taught), torch.sigmoid(logits)
    entropy = F.binary_cross_entropy_with_logits(taught, target, reduction="none")
    divergence = F.binary_cross_entropy_with_logits(logits, target, reduction="none") - entropy
    weighted = _total(weights * divergence) / _total(weights)
    intersection = _total(probability * target * weights)
    union = _total((probability**2 + target**2) * weights) - intersection
    seen = target.amax(dim=(1, 2, 3)) >= SEEN
    smoothing = 1 + (~seen).float() * (empty_smoothing * target[0].numel())
    return (weighted + 1 - (intersection + smoothing) / (union + smoothing)).mean()


def _distance(projected: Tensor, taught: Tensor) -> Tensor:
    """Return one less the cosine of the features (B, C, h, w) of each place, averaged."""
    return (1 - F.cosine_similarity(projected.float(), taught.float(), dim=1)).mean()


def _total(values: Tensor) -> Tensor:
    return values.sum(dim=(1, 2, 3))
