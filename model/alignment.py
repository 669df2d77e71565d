"""Channels padded to what tensor cores take: the same function with a few more zeros.

Half of Res2Net-50's convolutions have 26 or 52 channels. A tensor core reads eight at a time, and cuDNN pads others on
every call, or falls back on slower kernels.
"""

import copy

import torch
from torch import Tensor, nn

from model.pranet import PraNet
from model.res2net import SCALES, Bottle2neck

ALIGNMENT = 8  # channels


def align_channels(network: PraNet) -> PraNet:
    """Pad the scales of each residual block of a network with folded batch-norm to multiples of 8, in place.

    The channels that are added have weights and biases of zero, so they hold zeros and add nothing to others.
    """
    for block in network.modules():
        if isinstance(block, Bottle2neck) and block.width % ALIGNMENT:
            _pad(block, block.width + -block.width % ALIGNMENT)
    return network


def _pad(block: Bottle2neck, width: int) -> None:
    old = block.width
    block.conv1 = _padded(block.conv1, (1, block.conv1.in_channels, block.conv1.in_channels), (SCALES, old, width))
    block.convs = nn.ModuleList(_padded(conv, (1, old, width), (1, old, width)) for conv in block.convs)
    block.conv3 = _padded(block.conv3, (SCALES, old, width), (1, block.conv3.out_channels, block.conv3.out_channels))
    block.width = width


def _padded(conv: nn.Module, inputs: tuple[int, int, int], outputs: tuple[int, int, int]) -> nn.Conv2d:
    """Copy a convolution; ``inputs`` and ``outputs`` are groups of channels, their width, and the width they get."""
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    out = copy.deepcopy(conv)
    out.in_channels, out.out_channels = inputs[0] * inputs[2], outputs[0] * outputs[2]
    weight = _widened(_widened(conv.weight, outputs, dim=0), inputs, dim=1)
    out.weight, out.bias = nn.Parameter(weight), nn.Parameter(_widened(conv.bias, outputs, dim=0))
    return out.requires_grad_(False)


def _widened(values: Tensor, groups: tuple[int, int, int], dim: int) -> Tensor:
    number, old, new = groups
    parts = torch.split(values.detach(), old, dim)
    assert len(parts) == number
    shape = list(values.shape)
    shape[dim] = new - old
    zeros = values.new_zeros(shape)
    return torch.cat([each for part in parts for each in (part, zeros)], dim)
