"""The scales of a stage's first block as one grouped convolution: the same function, with less copying.

The scales of such a block are independent. The convolved ones stay in one tensor and pass through one grouped
convolution, so nothing is split and concatenated. The last scale, which is averaged, gets a convolution of its own.
CPUs whose cores share no cache gain most, because there a copy often reads what another core has written.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.pranet import PraNet
from model.network.res2net import SCALES, Bottle2neck
from model.rewrites.folding import bias_of

CONVOLVED = SCALES - 1  # scales


def group_scales(network: PraNet) -> PraNet:
    """Replace the first blocks of stages 1 and 2, in place; batch-norm must be folded.

    The other stages gain almost nothing.
    """
    for stage in (network.resnet.layer1, network.resnet.layer2):
        stage[0] = GroupedScales(cast(Bottle2neck, stage[0]))
    return network


class GroupedScales(nn.Module):
    """First block of a stage, with one grouped convolution for all convolved scales."""

    def __init__(self, block: Bottle2neck) -> None:
        """Take over the layers of a block with folded batch-norm."""
        super().__init__()
        inner = CONVOLVED * block.width
        self.conv1 = _outputs(block.conv1, slice(inner))
        self.last = _outputs(block.conv1, slice(inner, None))
        self.convs = _grouped([cast(nn.Conv2d, conv) for conv in block.convs])
        self.pool, self.conv3, self.downsample = block.pool, block.conv3, block.downsample

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, 4 * planes, H / stride, W / stride)."""
        scales = F.relu(self.convs(F.relu(self.conv1(x))))
        last = self.pool(F.relu(self.last(x)))
        out: Tensor = self.conv3(torch.cat((scales, last), dim=1)) + self.downsample(x)
        return F.relu(out)


def _outputs(conv: nn.Conv2d, part: slice) -> nn.Conv2d:
    """Return a 1x1 convolution that computes some of the output channels of another one."""
    return _filled(nn.Conv2d(conv.in_channels, conv.weight[part].shape[0], 1), conv.weight[part], bias_of(conv)[part])


def _grouped(convs: list[nn.Conv2d]) -> nn.Conv2d:
    width, stride = convs[0].in_channels, int(convs[0].stride[0])
    grouped = nn.Conv2d(len(convs) * width, len(convs) * width, 3, stride, padding=1, groups=len(convs))
    return _filled(grouped, torch.cat([conv.weight for conv in convs]), torch.cat([bias_of(conv) for conv in convs]))


def _filled(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    conv.weight, conv.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
    return conv.requires_grad_(False)
