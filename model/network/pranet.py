"""PraNet: Parallel Reverse Attention Network (Fan et al., MICCAI 2020; Ji et al., MediaEval 2020).

A parallel partial decoder merges the three deepest backbone features into a coarse global map, S6. Three reverse
attention branches then suppress what is already found and search the rest, giving S5, S4 and S3. Attributes have the
names of the published checkpoints, which load by strict key match.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.res2net import Res2Net50

CHANNELS = 32  # of the receptive-field blocks and of the decoder
STRIDE = 32  # of the deepest feature: the sides of the input must be multiples of it


class Maps(NamedTuple):
    """Logits (B, 1, H, W) of the four side outputs at the size of the input; ``s3`` is the prediction."""

    s6: Tensor
    s5: Tensor
    s4: Tensor
    s3: Tensor


class ConvNorm(nn.Module):
    """Convolution and batch-norm, "same" padding, no activation."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int | tuple[int, int], dilation: int = 1) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (dilation * (sides[0] // 2), dilation * (sides[1] // 2))
        self.conv = nn.Conv2d(in_channels, out_channels, sides, padding=padding, dilation=dilation, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W)."""
        out: Tensor = self.bn(self.conv(x))
        return out


class ReceptiveFieldBlock(nn.Module):
    """Four parallel branches of growing receptive field (MICCAI 2020, section 2.1, after RFB-Net)."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.branch0 = nn.Sequential(ConvNorm(in_channels, CHANNELS, 1))
        self.branch1 = self._branch(in_channels, 3)
        self.branch2 = self._branch(in_channels, 5)
        self.branch3 = self._branch(in_channels, 7)
        self.conv_cat = ConvNorm(4 * CHANNELS, CHANNELS, 3)
        self.conv_res = ConvNorm(in_channels, CHANNELS, 1)

    @staticmethod
    def _branch(in_channels: int, size: int) -> nn.Sequential:
        return nn.Sequential(
            ConvNorm(in_channels, CHANNELS, 1),
            ConvNorm(CHANNELS, CHANNELS, (1, size)),
            ConvNorm(CHANNELS, CHANNELS, (size, 1)),
            ConvNorm(CHANNELS, CHANNELS, 3, dilation=size),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, 32, H, W)."""
        branches = (self.branch0, self.branch1, self.branch2, self.branch3)
        merged = self.conv_cat(torch.cat([branch(x) for branch in branches], dim=1))
        return F.relu(merged + self.conv_res(x))


class Reduction(ConvNorm):
    """1x1 convolution of features that are multiplied by a gate."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, features: Tensor, gate: Tensor) -> Tensor:  # type: ignore[override]
        """Map (B, in_channels, H, W) and a gate (B, 1, H, W) to (B, out_channels, H, W)."""
        return super().forward(gate * features)


class PartialDecoder(nn.Module):
    """Parallel partial decoder: the three receptive-field features merge into S6 (MICCAI 2020, section 2.1)."""

    def __init__(self) -> None:
        super().__init__()
        self.upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.conv_upsample1 = ConvNorm(CHANNELS, CHANNELS, 3)
        self.conv_upsample2 = ConvNorm(CHANNELS, CHANNELS, 3)
        self.conv_upsample3 = ConvNorm(CHANNELS, CHANNELS, 3)
        self.conv_upsample4 = ConvNorm(CHANNELS, CHANNELS, 3)
        self.conv_upsample5 = ConvNorm(2 * CHANNELS, 2 * CHANNELS, 3)
        self.conv_concat2 = ConvNorm(2 * CHANNELS, 2 * CHANNELS, 3)
        self.conv_concat3 = ConvNorm(3 * CHANNELS, 3 * CHANNELS, 3)
        self.conv4 = ConvNorm(3 * CHANNELS, 3 * CHANNELS, 3)
        self.conv5 = nn.Conv2d(3 * CHANNELS, 1, 1)

    def forward(self, deep: Tensor, middle: Tensor, shallow: Tensor) -> Tensor:
        """Map (B, 32, h, w), (B, 32, 2h, 2w), (B, 32, 4h, 4w) to logits (B, 1, 4h, 4w)."""
        shallow_gated, middle_merged = self.gate(deep, middle, shallow)
        merged = torch.cat((shallow_gated, self.conv_upsample5(middle_merged)), dim=1)
        logits: Tensor = self.conv5(self.conv4(self.conv_concat3(merged)))
        return logits

    def at_stride_32(self, logits: Tensor) -> Tensor:
        """Reduce this decoder's logits (B, 1, 4h, 4w) to (B, 1, h, w), the input of the first reverse attention."""
        return _resize(logits, 1 / 4)

    def gate(self, deep: Tensor, middle: Tensor, shallow: Tensor) -> tuple[Tensor, Tensor]:
        """Gate features by deeper ones: (B, 32, 4h, 4w) and (B, 64, 4h, 4w). All later layers are linear."""
        up = self.upsample
        deep_2x = up(deep)
        middle_gated = self.conv_upsample1(deep_2x) * middle
        shallow_gated = self.conv_upsample2(up(deep_2x)) * self.conv_upsample3(up(middle)) * shallow
        middle_merged = self.conv_concat2(torch.cat((middle_gated, self.conv_upsample4(deep_2x)), dim=1))
        return shallow_gated, up(middle_merged)


class PraNet(nn.Module):
    """The whole network; its input is normalised RGB whose sides are multiples of 32."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = Res2Net50()
        self.rfb2_1 = ReceptiveFieldBlock(512)
        self.rfb3_1 = ReceptiveFieldBlock(1024)
        self.rfb4_1 = ReceptiveFieldBlock(2048)
        self.agg1 = PartialDecoder()
        self.ra4_conv1 = Reduction(2048, 256)
        self.ra4_conv2 = ConvNorm(256, 256, 5)
        self.ra4_conv3 = ConvNorm(256, 256, 5)
        self.ra4_conv4 = ConvNorm(256, 256, 5)
        self.ra4_conv5 = ConvNorm(256, 1, 1)
        self.ra3_conv1 = Reduction(1024, 64)
        self.ra3_conv2 = ConvNorm(64, 64, 3)
        self.ra3_conv3 = ConvNorm(64, 64, 3)
        self.ra3_conv4 = ConvNorm(64, 1, 3)
        self.ra2_conv1 = Reduction(512, 64)
        self.ra2_conv2 = ConvNorm(64, 64, 3)
        self.ra2_conv3 = ConvNorm(64, 64, 3)
        self.ra2_conv4 = ConvNorm(64, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised RGB (B, 3, H, W) to the logits of S3 (B, 1, H, W)."""
        return _resize(self.coarse(x), 8)

    def coarse(self, x: Tensor) -> Tensor:
        """Map normalised RGB (B, 3, H, W) to the logits of S3 at stride 8, (B, 1, H/8, W/8)."""
        return self._refine(self.resnet(x))[-1]

    def maps(self, x: Tensor) -> Maps:
        """Map normalised RGB (B, 3, H, W) to the logits of all four side outputs (deep supervision)."""
        return self.maps_of(self.resnet(x))

    def maps_of(self, features: tuple[Tensor, Tensor, Tensor]) -> Maps:
        """Map the features of the backbone to the logits of all four side outputs."""
        s6, s5, s4, s3 = self._refine(features)
        return Maps(_resize(s6, 8), _resize(s5, 32), _resize(s4, 16), _resize(s3, 8))

    def _refine(self, features: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the logits of S6, S5, S4, S3 at strides 8, 32, 16, 8."""
        x2, x3, x4 = features
        s6 = self.agg1(self.rfb4_1(x4), self.rfb3_1(x3), self.rfb2_1(x2))
        s5 = _reverse_attention(
            x4,
            self.agg1.at_stride_32(s6),
            self.ra4_conv1,
            self.ra4_conv2,
            self.ra4_conv3,
            self.ra4_conv4,
            self.ra4_conv5,
        )
        s4 = _reverse_attention(x3, _resize(s5, 2), self.ra3_conv1, self.ra3_conv2, self.ra3_conv3, self.ra3_conv4)
        s3 = _reverse_attention(x2, _resize(s4, 2), self.ra2_conv1, self.ra2_conv2, self.ra2_conv3, self.ra2_conv4)
        return s6, s5, s4, s3


def _reverse_attention(features: Tensor, guess: Tensor, reduce: Reduction, *convs: ConvNorm) -> Tensor:
    """Correct the logits ``guess`` by features outside of its foreground (MICCAI 2020, section 2.2)."""
    x = reduce(features, 1 - torch.sigmoid(guess))
    for conv in convs[:-1]:
        x = F.relu(conv(x))
    refined: Tensor = convs[-1](x) + guess
    return refined


def _resize(x: Tensor, scale: float) -> Tensor:
    return F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
