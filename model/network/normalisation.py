"""Raw pixels -> what the network takes: ImageNet mean and deviation, channels last."""

from typing import cast

import torch
from torch import Tensor, nn

from model.network.pranet import PraNet
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


class Centred(nn.Module):
    """PraNet whose first convolution scales its input, so that only whole numbers are taken from the pixels.

    Those are exact in bfloat16, where normalised pixels are not: an error there is the same all over a smooth picture.
    What pads the picture is the mean rounded to a whole level.
    """

    def __init__(self, network: PraNet) -> None:
        """Change ``network``, whose batch-norm is folded, so that its first convolution has a bias."""
        super().__init__()
        mean, std = _statistics()
        self.network = network
        self.register_buffer("centre", mean.round(), persistent=False)
        self.centre: Tensor
        first = cast(nn.Conv2d, network.resnet.conv1[0])
        assert first.bias is not None  # that of the batch-norm
        with torch.no_grad():
            first.weight /= std
            first.bias -= (first.weight * (mean - self.centre)).sum(dim=(1, 2, 3))

    def forward(self, pixels: Tensor) -> Tensor:
        """Map uint8 RGB (N, 3, H, W) to coarse logits (N, 1, H/8, W/8)."""
        return self.network.coarse(pixels - self.centre)


def _statistics() -> tuple[Tensor, Tensor]:
    """Return mean and deviation (1, 3, 1, 1) of pixels 0..255."""
    return 255 * torch.tensor(MEAN).view(1, 3, 1, 1), 255 * torch.tensor(STD).view(1, 3, 1, 1)


def _scaled(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)
