"""Training with frozen statistics at the cost of the convolutions alone.

Batch-norm that keeps its statistics multiplies and shifts each channel by numbers that do not depend on the batch. So
each step folds these into the weights of the convolutions first, which are small, and has no batch-norm to compute on
the pictures, which are large. The function and its gradients are the same: they reach the weights of the convolution
and of the batch-norm through the product.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.pranet import PraNet
from model.rewrites.folding import convolutions, swap


class FoldedConv(nn.Module):
    """A convolution and the batch-norm behind it in one; both keep their parameters, which may be in training."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv, self.norm = conv, norm

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H', W')."""
        conv, norm = self.conv, self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        shift = norm.bias - norm.running_mean * scale
        bias = shift if conv.bias is None else shift + conv.bias * scale
        weight = conv.weight * scale.view(-1, 1, 1, 1)
        return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def folded(network: PraNet) -> PraNet:
    """Return a network that computes what ``network`` does, with its very parameters and buffers, without batch-norm.

    The statistics of ``network`` must be frozen: its batch-norms are in evaluation mode.
    """
    pairs = convolutions(network)
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    twin = copy.deepcopy(network, shared)
    counterpart = dict(zip(network.modules(), twin.modules(), strict=True))
    others: dict[nn.Module, nn.Module] = {}
    for norm, conv in pairs.items():
        others[counterpart[conv]] = FoldedConv(conv, norm)
        others[counterpart[norm]] = nn.Identity()
    swap(twin, others)
    return twin
