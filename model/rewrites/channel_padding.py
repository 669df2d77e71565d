"""Channels padded to what tensor cores take: the same function with a few more zeros.

Half of Res2Net-50's convolutions have 26 or 52 channels. A tensor core reads eight at a time, or better sixteen, and
cuDNN pads others on every call, or falls back on slower kernels.
"""

import copy

import torch
from torch import Tensor, nn

from model.network.pranet import PraNet
from model.network.res2net import Bottle2neck

ALIGNMENT = 16  # channels


def align_channels(network: PraNet) -> PraNet:
    """Pad the scales of each residual block of a network with folded batch-norm to multiples of 16, in place.

    The channels that are added have weights and biases of zero, so they hold zeros and add nothing to others.
    """
    for block in network.modules():
        if isinstance(block, Bottle2neck) and block.width % ALIGNMENT:
            _pad(block, block.width + -block.width % ALIGNMENT)
    return network


def _pad(block: Bottle2neck, width: int) -> None:
    widths = (block.width, width)
    block.conv1 = _padded(block.conv1, outputs=widths)
    block.convs = nn.ModuleList(_padded(conv, inputs=widths, outputs=widths) for conv in block.convs)
    block.conv3 = _padded(block.conv3, inputs=widths)
    block.width = width


def _padded(
    conv: nn.Module, inputs: tuple[int, int] | None = None, outputs: tuple[int, int] | None = None
) -> nn.Conv2d:
    """Copy a convolution; ``inputs`` and ``outputs`` are the width of their groups of channels, and what it becomes."""
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    weight, bias = conv.weight.detach(), conv.bias.detach()
    if outputs is not None:
        weight, bias = _widened(weight, *outputs, dim=0), _widened(bias, *outputs, dim=0)
    if inputs is not None:
        weight = _widened(weight, *inputs, dim=1)
    out = copy.deepcopy(conv)
    out.out_channels, out.in_channels = weight.shape[:2]
    out.weight, out.bias = nn.Parameter(weight), nn.Parameter(bias)
    return out.requires_grad_(False)


def _widened(values: Tensor, old: int, new: int, dim: int) -> Tensor:
    """Append zeros to each group of ``old`` entries along a dimension."""
    groups = values.unflatten(dim, (-1, old))  # type: ignore[no-untyped-call]
    shape = list(groups.shape)
    shape[dim + 1] = new - old
    return torch.cat([groups, values.new_zeros(shape)], dim + 1).flatten(dim, dim + 1)
