"""EfficientNet-Lite2 (Tan and Le, ICML 2019; the "Lite" variant has ReLU6 and no squeeze-and-excitation).

Its weights were trained on ImageNet. Batch-norm is folded into the convolutions when they are loaded: it would unlearn
its statistics on small batches.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEM_CHANNELS = 32
EPSILON = 1e-3  # of the published batch-norm
CEILING = 6.0  # of ReLU6


class Stage(NamedTuple):
    """Inverted residual blocks of one shape; the first of them has the stride."""

    kernel: int
    stride: int
    expansion: int
    channels: int
    blocks: int


STAGES = (
    Stage(3, 1, 1, 16, 1),
    Stage(3, 2, 6, 24, 3),
    Stage(5, 2, 6, 48, 3),
    Stage(3, 2, 6, 88, 4),
    Stage(5, 1, 6, 120, 4),
    Stage(5, 2, 6, 208, 5),
    Stage(3, 1, 6, 352, 1),
)
TAPPED = (1, 2, 4, 6)  # stages whose outputs are the features at strides 4, 8, 16 and 32
FEATURES = tuple(STAGES[stage].channels for stage in TAPPED)


class Conv(nn.Conv2d):
    """Convolution with a bias and TensorFlow's "same" padding, which is one wider at the right and bottom."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int, groups: int, bounded: bool
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, groups=groups)
        self.bounded = bounded

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride), with ReLU6 if ``bounded``."""
        total = self.kernel_size[0] - self.stride[0]
        before, after = total // 2, total - total // 2
        x = F.pad(x, (before, after, before, after)) if total else x
        # Depthwise convolutions are slower in bfloat16 than in float32 on processors, most of all their gradients.
        with torch.autocast(x.device.type, enabled=torch.is_autocast_enabled(x.device.type) and self.groups == 1):
            out = super().forward(x if self.groups == 1 else x.float())
        return F.hardtanh(out, 0.0, CEILING) if self.bounded else out


class Block(nn.Module):
    """Inverted residual block: expansion, depthwise convolution, linear projection."""

    def __init__(self, in_channels: int, stage: Stage, stride: int) -> None:
        super().__init__()
        width = in_channels * stage.expansion
        self.expand = Conv(in_channels, width, 1, 1, 1, bounded=True) if stage.expansion > 1 else None
        self.depthwise = Conv(width, width, stage.kernel, stride, width, bounded=True)
        self.project = Conv(width, stage.channels, 1, 1, 1, bounded=False)
        self.residual = stride == 1 and in_channels == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H / stride, W / stride)."""
        out: Tensor = self.project(self.depthwise(x if self.expand is None else self.expand(x)))
        return x + out if self.residual else out


class EfficientNetLite2(nn.Module):
    """The encoder, without its classifier and the convolution before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv(3, STEM_CHANNELS, 3, 2, 1, bounded=True)
        channels = STEM_CHANNELS
        stages = []
        for stage in STAGES:
            blocks = []
            for number in range(stage.blocks):
                blocks.append(Block(channels, stage, stage.stride if number == 0 else 1))
                channels = stage.channels
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map RGB -1..1 (B, 3, H, W) to features of 24, 48, 120 and 352 channels at strides 4, 8, 16 and 32."""
        x = self.stem(x)
        features = []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in TAPPED:
                features.append(x)
        return tuple(features)

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """Load the parameters of a checkpoint in the key names of ``efficientnet_lite_pytorch``.

        Raises:
            KeyError: a parameter is missing.
            RuntimeError: a parameter has another shape.

        """
        blocks = [block for block in self.modules() if isinstance(block, Block)]
        _load(self.stem, state, "_conv_stem", "_bn0")
        for number, block in enumerate(blocks):
            prefix = f"_blocks.{number}."
            if block.expand is not None:
                _load(block.expand, state, f"{prefix}_expand_conv", f"{prefix}_bn0")
            _load(block.depthwise, state, f"{prefix}_depthwise_conv", f"{prefix}_bn1")
            _load(block.project, state, f"{prefix}_project_conv", f"{prefix}_bn2")


def _load(conv: Conv, state: Mapping[str, Tensor], weight: str, norm: str) -> None:
    """Load a convolution with the batch-norm behind it folded in."""
    scale = state[f"{norm}.weight"] * torch.rsqrt(state[f"{norm}.running_var"] + EPSILON)
    bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
    conv.load_state_dict({"weight": state[f"{weight}.weight"] * scale.view(-1, 1, 1, 1), "bias": bias})
