"""Raw pixels -> what the network takes: ImageNet mean and deviation, channels last."""

import torch
from torch import Tensor, nn

from model.pranet import PraNet
from model.transforms import MEAN, STD


def normalise(pixels: Tensor) -> Tensor:
    """Map RGB 0..255 (B, 3, H, W), of any type, to normalised float32 of the same shape."""
    mean, std = _statistics()
    return _scaled(pixels, mean.to(pixels.device), std.to(pixels.device))


class Normalised(nn.Module):
    """PraNet behind its normalisation, so that callers send raw pixels; in the precision that it is cast to."""

    def __init__(self, network: PraNet) -> None:
        super().__init__()
        self.network = network
        for name, values in zip(("mean", "std"), _statistics(), strict=True):
            self.register_buffer(name, values, persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, pixels: Tensor) -> Tensor:
        """Map uint8 RGB (N, 3, H, W) to logits (N, 1, H, W)."""
        logits: Tensor = self.network(_scaled(pixels.to(self.mean.dtype), self.mean, self.std))
        return logits


def _statistics() -> tuple[Tensor, Tensor]:
    """Return mean and deviation (1, 3, 1, 1) of pixels 0..255."""
    return 255 * torch.tensor(MEAN).view(1, 3, 1, 1), 255 * torch.tensor(STD).view(1, 3, 1, 1)


def _scaled(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)
