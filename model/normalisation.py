"""Raw pixels -> what the network takes: ImageNet mean and deviation, channels last."""

import torch
from torch import Tensor, nn

from model.pranet import PraNet
from model.transforms import MEAN, STD


def normalise(pixels: Tensor) -> Tensor:
    """Map RGB 0..255 (B, 3, H, W), of any type, to normalised float32 of the same shape."""
    mean, std = (255 * torch.tensor(values, device=pixels.device).view(1, 3, 1, 1) for values in (MEAN, STD))
    return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)


class Normalised(nn.Module):
    """PraNet behind its normalisation, so that callers send raw pixels; in the precision that it is cast to."""

    def __init__(self, network: PraNet) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", 255 * torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(STD).view(1, 3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, pixels: Tensor) -> Tensor:
        """Map uint8 RGB (N, 3, H, W) to logits (N, 1, H, W)."""
        x = (pixels.to(self.mean.dtype) - self.mean) / self.std
        logits: Tensor = self.network(x.contiguous(memory_format=torch.channels_last))
        return logits
