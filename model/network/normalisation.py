"""Normalisation of raw pixels with ImageNet's mean and standard deviation, in channels-last layout."""

from typing import cast

import torch
from torch import Tensor, nn

from model.network.pranet import PraNet
from model.transforms import MEAN, STD


def normalise(pixels: Tensor) -> Tensor:
    """Map RGB 0..255 (B, 3, H, W) of any dtype to normalised float32 of the same shape."""
    mean, std = _statistics()
    return _scaled(pixels, mean.to(pixels.device), std.to(pixels.device))


class Normalised(nn.Module):
    """Normalisation and PraNet in one module, so that callers send raw pixels; computes in the dtype it is cast to."""

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


class Centred(nn.Module):
    """PraNet whose first convolution does the scaling, so that only an integer is subtracted from each pixel.

    The differences are integers below 256, which bfloat16 represents exactly. Normalised pixels would be rounded, with
    the same error over a whole smooth area. The picture is padded with the mean rounded to an integer.
    """

    def __init__(self, network: PraNet) -> None:
        """Change ``network`` in place. Its batch-norm must be folded, so that the first convolution has a bias."""
        super().__init__()
        mean, std = _statistics()
        self.network = network
        self.register_buffer("centre", mean.round(), persistent=False)
        self.centre: Tensor
        first = cast(nn.Conv2d, network.resnet.conv1[0])
        assert first.bias is not None  # comes from the folded batch-norm
        with torch.no_grad():
            first.weight /= std
            first.bias -= (first.weight * (mean - self.centre)).sum(dim=(1, 2, 3))

    def forward(self, pixels: Tensor) -> Tensor:
        """Map uint8 RGB (N, 3, H, W) to coarse logits (N, 1, H/8, W/8)."""
        return self.network.coarse(pixels - self.centre)


def _statistics() -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (1, 3, 1, 1) for pixels 0..255."""
    return 255 * torch.tensor(MEAN).view(1, 3, 1, 1), 255 * torch.tensor(STD).view(1, 3, 1, 1)


def _scaled(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)
