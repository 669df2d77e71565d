"""What a step minimises: PraNet's structure loss, unless the recipe says that a teacher takes part."""

import contextlib

import torch
from torch import Tensor, nn

from model.network.normalisation import normalise
from model.network.pranet import PraNet
from model.training.loss import supervised_loss
from model.training.recipe import Recipe


class Supervision(nn.Module):
    """The losses of PraNet's side outputs that the recipe names."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe

    def forward(self, network: PraNet, images: Tensor, masks: Tensor) -> Tensor:
        """Return the loss, a scalar, on RGB uint8 (B, 3, S, S) and masks float32 (B, 1, S, S) of 0 and 1."""
        with autocast(images.device, self.recipe.precision):
            maps = network.maps(normalise(images))
        recipe = self.recipe
        return supervised_loss(maps, masks, recipe.supervise, recipe.empty_smoothing, recipe.presence_weight)


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """Compute in the precision of a recipe inside the block: ``fp32``, or ``bf16`` with float32 weights."""
    return contextlib.nullcontext() if precision == "fp32" else torch.autocast(device.type, torch.bfloat16)
