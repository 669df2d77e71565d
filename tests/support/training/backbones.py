"""Backbones with random parameters under the published names."""

import math

import torch
from torch import Tensor, nn

from model.training.teacher.efficientnet import Block, EfficientNetLite2


def published() -> dict[str, Tensor]:
    """Return an EfficientNet-Lite2 with a batch-norm behind each convolution."""
    generator = torch.Generator().manual_seed(0)
    encoder = EfficientNetLite2()
    state: dict[str, Tensor] = {"_fc.bias": torch.zeros(1000)}

    def add(conv: nn.Conv2d, weight: str, norm: str) -> None:
        width = conv.out_channels
        state[f"{weight}.weight"] = torch.randn(conv.weight.shape, generator=generator) / math.sqrt(
            conv.weight[0].numel()
        )
        for name, low, high in (("weight", 0.5, 1.5), ("bias", -0.5, 0.5), ("running_mean", -1, 1)):
            state[f"{norm}.{name}"] = torch.empty(width).uniform_(low, high, generator=generator)
        state[f"{norm}.running_var"] = torch.empty(width).uniform_(0.5, 1.5, generator=generator)

    add(encoder.stem, "_conv_stem", "_bn0")
    for number, block in enumerate(each for each in encoder.modules() if isinstance(each, Block)):
        if block.expand is not None:
            add(block.expand, f"_blocks.{number}._expand_conv", f"_blocks.{number}._bn0")
        add(block.depthwise, f"_blocks.{number}._depthwise_conv", f"_blocks.{number}._bn1")
        add(block.project, f"_blocks.{number}._project_conv", f"_blocks.{number}._bn2")
    return state
