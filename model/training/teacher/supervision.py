"""What a teacher learns from: the annotation, at two depths, and whether there is a polyp at all."""

import torch.nn.functional as F
from torch import Tensor, nn

from model.network.normalisation import normalise
from model.training.loss import VISIBLE, edge_weights, structure_loss
from model.training.objective import autocast
from model.training.recipe import Recipe
from model.training.teacher.network import Teacher

COARSE = 0.5  # weight of the coarse map's loss
PRESENCE = 0.3  # weight of the presence's cross-entropy


class TeacherSupervision(nn.Module):
    """The structure losses of both maps and the cross-entropy of the presence."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe

    def forward(self, network: Teacher, images: Tensor, masks: Tensor) -> Tensor:
        """Return the loss, a scalar, on RGB uint8 (B, 3, S, S) and masks float32 (B, 1, S, S) of 0 and 1."""
        with autocast(images.device, self.recipe.precision):
            out = network.outputs(normalise(images))
        weights, smoothing = edge_weights(masks), self.recipe.empty_smoothing
        fine = structure_loss(out.fine, masks, weights, smoothing)
        coarse = structure_loss(out.coarse, masks, weights, smoothing)
        present = (masks.mean((1, 2, 3)) > VISIBLE).float()
        presence = F.binary_cross_entropy_with_logits(out.presence.float(), present)
        return fine + COARSE * coarse + PRESENCE * presence
