"""Res2Net-50 v1b 26w x 4s, the backbone of PraNet (Gao et al., TPAMI 2021).

"v1b" has a stem of three 3x3 convolutions, and average pooling before a strided shortcut. Attributes have the names
of the published checkpoints, which load by strict key match.
"""

import torch
from torch import Tensor, nn

BASE_WIDTH = 26  # channels of each scale in a block of 64 planes
SCALES = 4
EXPANSION = 4
STEM_CHANNELS = 64
BLOCKS_PER_STAGE = (3, 4, 6, 3)


class Bottle2neck(nn.Module):
    """Residual block whose 3x3 convolution is split into a hierarchy of scales (Res2Net, section 3.1).

    The first block of a stage (``stage=True``) changes resolution or width. Its scales are independent instead of
    chained, and the last one is average-pooled instead of passed through.
    """

    def __init__(self, in_channels: int, planes: int, stride: int, stage: bool) -> None:
        super().__init__()
        self.width = planes * BASE_WIDTH // 64
        self.stage = stage
        self.conv1 = nn.Conv2d(in_channels, self.width * SCALES, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(self.width * SCALES)
        self.pool = nn.AvgPool2d(3, stride, padding=1) if stage else nn.Identity()
        self.convs = nn.ModuleList(
            nn.Conv2d(self.width, self.width, 3, stride, padding=1, bias=False) for _ in range(SCALES - 1)
        )
        self.bns = nn.ModuleList(nn.BatchNorm2d(self.width) for _ in range(SCALES - 1))
        self.conv3 = nn.Conv2d(self.width * SCALES, planes * EXPANSION, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * EXPANSION)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, planes * EXPANSION, stride) if stage else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, 4 * planes, H / stride, W / stride)."""
        splits = torch.split(self.relu(self.bn1(self.conv1(x))), self.width, dim=1)
        outputs: list[Tensor] = []
        for index, (conv, bn) in enumerate(zip(self.convs, self.bns, strict=True)):
            chained = not self.stage and index > 0
            scale = splits[index] + outputs[-1] if chained else splits[index]
            outputs.append(self.relu(bn(conv(scale))))
        outputs.append(self.pool(splits[-1]))
        out: Tensor = self.bn3(self.conv3(torch.cat(outputs, dim=1)))
        out = self.relu(out + self.downsample(x))
        return out


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
    return nn.Sequential(
        pool,
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def _stage(in_channels: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    rest = (Bottle2neck(planes * EXPANSION, planes, 1, stage=False) for _ in range(blocks - 1))
    return nn.Sequential(Bottle2neck(in_channels, planes, stride, stage=True), *rest)


class Res2Net50(nn.Module):
    """Res2Net-50 v1b 26w x 4s without its classifier."""

    def __init__(self) -> None:
        super().__init__()
        half = STEM_CHANNELS // 2
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, half, 3, padding=1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, STEM_CHANNELS, 3, padding=1, bias=False),
        )
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(STEM_CHANNELS, 64, BLOCKS_PER_STAGE[0], stride=1)
        self.layer2 = _stage(64 * EXPANSION, 128, BLOCKS_PER_STAGE[1], stride=2)
        self.layer3 = _stage(128 * EXPANSION, 256, BLOCKS_PER_STAGE[2], stride=2)
        self.layer4 = _stage(256 * EXPANSION, 512, BLOCKS_PER_STAGE[3], stride=2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map (B, 3, H, W) to features of 512, 1024 and 2048 channels at strides 8, 16 and 32."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # (B, 64, H/4, W/4)
        x = self.layer1(x)  # (B, 256, H/4, W/4)
        x2 = self.layer2(x)  # (B, 512, H/8, W/8)
        x3 = self.layer3(x2)  # (B, 1024, H/16, W/16)
        x4 = self.layer4(x3)  # (B, 2048, H/32, W/32)
        return x2, x3, x4
