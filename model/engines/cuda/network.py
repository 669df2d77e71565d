"""PraNet rearranged for GPUs: the same function in fewer, larger kernels.

On a GPU, memory traffic costs more than arithmetic. So average pooling becomes part of convolutions, although their
kernels grow and are mostly zeros; biases are merged; and reductions run before their gate is known instead of after.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.pranet import PraNet, ReceptiveFieldBlock
from model.network.res2net import SCALES, Bottle2neck
from model.rewrites.channel_padding import align_channels
from model.rewrites.decoder_folding import fold_end_of_decoder
from model.rewrites.folding import bias_of, fold_batch_norm
from model.transforms import SIZE

WINDOW = 9  # pixels in the average pooling of the last scale


def arrange(network: PraNet, size: int = SIZE) -> PraNet:
    """Rearrange a network in evaluation mode, in place, for square inputs of ``size``; ``maps`` no longer works."""
    align_channels(fold_end_of_decoder(fold_batch_norm(network), size, size))
    for layer in (network.resnet.layer1, network.resnet.layer2, network.resnet.layer3, network.resnet.layer4):
        layer[0] = FirstBlock(cast(Bottle2neck, layer[0]))
    for block in network.modules():
        if isinstance(block, ReceptiveFieldBlock):
            _move_bias(block.conv_res.conv, block.conv_cat.conv)
    for name in ("ra4_conv1", "ra3_conv1", "ra2_conv1"):
        setattr(network, name, LateGate(getattr(network, name).conv))
    return network


class FirstBlock(nn.Module):
    """First block of a stage as four convolutions; one of them computes all scales, which are independent.

    The last scale is an average of ReLU outputs, so the added ReLU does not change it. Up to ``conv3`` it is kept as a
    sum of nine pixels, so float16 limits activations to 65,504 / 9 = 7,278; with the bundled weights they are below 20.
    """

    def __init__(self, block: Bottle2neck) -> None:
        """Take over the layers of a block with folded batch-norm."""
        super().__init__()
        self.conv1, self.conv3 = block.conv1, block.conv3
        self.scales = _side_by_side([cast(nn.Conv2d, each) for each in block.convs])
        with torch.no_grad():  # the last scale is a sum, whose weights are exact in float16
            self.conv3.weight[:, -block.width :] /= WINDOW
        pool, shortcut, _ = cast(nn.Sequential, block.downsample)
        self.shortcut = cast(nn.Conv2d, shortcut)
        if isinstance(pool, nn.AvgPool2d):
            self.shortcut = _behind_average(self.shortcut, cast(int, pool.kernel_size))
        _move_bias(self.shortcut, self.conv3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, 4 * planes, H / stride, W / stride)."""
        scales = F.relu(self.scales(F.relu(self.conv1(x))))
        return F.relu(self.conv3(scales) + self.shortcut(x))


class LateGate(nn.Module):
    """Reduction whose gate is applied after the convolution, so that it can run before the gate is computed."""

    def __init__(self, conv: nn.Conv2d) -> None:
        """Take over a 1x1 convolution with folded batch-norm."""
        super().__init__()
        self.conv = conv
        self.bias = nn.Parameter(bias_of(conv).view(1, -1, 1, 1), requires_grad=False)
        conv.bias = None

    def forward(self, features: Tensor, gate: Tensor) -> Tensor:
        """Map (B, C, H, W) and a gate (B, 1, H, W) to (B, out_channels, H, W)."""
        return torch.addcmul(self.bias, self.conv(features), gate)


def _side_by_side(convs: list[nn.Conv2d]) -> nn.Conv2d:
    """Return one convolution for all scales: ``convs`` for the first ones, a sum of 3x3 pixels for the last one."""
    width, stride = convs[0].in_channels, int(convs[0].stride[0])
    merged = nn.Conv2d(SCALES * width, SCALES * width, 3, stride, padding=1)
    with torch.no_grad():
        merged.weight.zero_()
        total = torch.eye(width)[:, :, None, None].expand(-1, -1, 3, 3)
        for index, weight in enumerate((*(conv.weight for conv in convs), total)):
            part = slice(index * width, (index + 1) * width)
            merged.weight[part, part] = weight
        merged.bias = nn.Parameter(torch.cat([*(bias_of(conv) for conv in convs), torch.zeros(width)]))
    return merged


def _behind_average(conv: nn.Conv2d, side: int) -> nn.Conv2d:
    """Return one convolution that equals an average of ``side`` x ``side`` pixels followed by the 1x1 ``conv``."""
    merged = nn.Conv2d(conv.in_channels, conv.out_channels, side, side)
    with torch.no_grad():
        merged.weight.copy_((conv.weight / side**2).expand_as(merged.weight))
        merged.bias = conv.bias
    return merged


def _move_bias(source: nn.Conv2d, target: nn.Conv2d) -> None:
    """Move a bias between two convolutions whose outputs are added: a fused kernel adds only one bias."""
    with torch.no_grad():
        bias_of(target).add_(bias_of(source))
    source.bias = None
