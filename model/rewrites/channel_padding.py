"""Zero padding of channels to the multiples that tensor cores need; the function stays the same.

Half of Res2Net-50's convolutions have 26 or 52 channels. Tensor cores read channels in groups of 8 or, better, 16. For
other numbers cuDNN pads on every call, or falls back to slower kernels.
"""

import copy

import torch
from torch import Tensor, nn

from model.network.pranet import PraNet
from model.network.res2net import Bottle2neck

ALIGNMENT = 16  # channels


def align_channels(network: PraNet) -> PraNet:
    """Pad the scales of each residual block to multiples of 16 channels, in place; batch-norm must be folded.

    The added channels have zero weights and biases, so they stay zero and change no other channel.
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
    """Copy a convolution with wider groups of channels; ``inputs`` and ``outputs`` are (old width, new width)."""
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
    """Append zeros to each group of ``old`` entries along a dimension, until it has ``new``."""
    groups = values.unflatten(dim, (-1, old))  # type: ignore[no-untyped-call]
    shape = list(groups.shape)
    shape[dim + 1] = new - old
    return torch.cat([groups, values.new_zeros(shape)], dim + 1).flatten(dim, dim + 1)
