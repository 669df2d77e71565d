"""The teacher: EfficientNet-Lite2 with a feature pyramid (Lin et al., CVPR 2017) that segments polyps."""

from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.training.backbone import published
from model.training.teacher.efficientnet import FEATURES, EfficientNetLite2
from model.transforms import MEAN, STD
from model.weights.weights_file import CheckpointError, read

CHANNELS = 64  # of each level of the pyramid
GROUPS = 8  # of its normalisation
DROPOUT = 0.2  # of the features that the presence of a polyp is told from
DOUBT = 1.0  # added to the logit of a frame's presence where it silences the map
SMALLEST = 1e-6  # keeps the logarithm of what lacks to certainty finite
CENTRE, RANGE = 127.0, 128.0  # EfficientNet-Lite takes (pixel - 127) / 128


class Output(NamedTuple):
    """Logits: ``fine`` and ``coarse`` are maps (B, 1, H, W), ``presence`` (B,) says whether there is a polyp."""

    fine: Tensor
    coarse: Tensor
    presence: Tensor


class Teacher(nn.Module):
    """The network; its input is RGB normalised for PraNet, whose sides are multiples of 32."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = EfficientNetLite2()
        self.laterals = nn.ModuleList([_normed(width, 1) for width in FEATURES])
        self.context = nn.Sequential(nn.Conv2d(FEATURES[-1], CHANNELS, 1), nn.ReLU(inplace=True))
        self.levels = nn.ModuleList([_normed(CHANNELS, 3, nn.ReLU(inplace=True)) for _ in FEATURES])
        self.fuse = _normed(3 * CHANNELS, 3, nn.ReLU(inplace=True))
        self.fine = nn.Conv2d(CHANNELS, 1, 1)
        self.coarse = nn.Conv2d(CHANNELS, 1, 1)
        self.presence = nn.Linear(2 * FEATURES[-1], 1)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised RGB (B, 3, H, W) to logits (B, 1, H, W)."""
        return self.taught(x)[0]

    def taught(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Map normalised RGB (B, 3, H, W) to what a student learns.

        Returns:
            The logits (B, 1, H, W) of the fine map, in which a frame that shows no polyp is silenced, and the features
            of the pyramid, (B, 64, h, w) at strides 4, 8, 16 and 32.

        """
        out, pyramid = self._all(x)
        return silenced(out.fine, out.presence), pyramid

    def outputs(self, x: Tensor) -> Output:
        """Map normalised RGB (B, 3, H, W) to all that is supervised."""
        return self._all(x)[0]

    def _all(self, x: Tensor) -> tuple[Output, tuple[Tensor, ...]]:
        features = self.encoder(rescaled(x))
        pyramid = self._pyramid(features)
        deepest = features[-1].float()
        pooled = torch.cat([deepest.mean((2, 3)), deepest.amax((2, 3))], dim=1)
        presence = self.presence(self.dropout(pooled))[:, 0]
        out = Output(self._map(pyramid, x), _resized(self.coarse(pyramid[2]).float(), x), presence.float())
        return out, pyramid

    def _pyramid(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the levels (B, 64, h, w) at strides 4, 8, 16 and 32."""
        above = self.context(features[-1].mean((2, 3), keepdim=True))
        found = []
        for lateral, level, feature in reversed(list(zip(self.laterals, self.levels, features, strict=True))):
            side = lateral(feature)
            above = level(side + (above if above.shape[-1] == 1 else _resized(above, side)))
            found.append(above)
        return tuple(reversed(found))

    def _map(self, pyramid: tuple[Tensor, ...], x: Tensor) -> Tensor:
        merged = self.fuse(torch.cat([_resized(level, pyramid[0]) for level in pyramid[:3]], dim=1))
        return _resized(self.fine(merged).float(), x)


def silenced(logits: Tensor, presence: Tensor) -> Tensor:
    """Return the logits (B, 1, H, W) of the product of each pixel's probability and its frame's, given as logits (B,).

    The frame's is raised by ``DOUBT`` first, so that only one that surely shows no polyp is silenced.
    """
    both = F.logsigmoid(logits.float()) + F.logsigmoid(presence.float() + DOUBT)[:, None, None, None]
    return both - torch.log(-torch.expm1(both.clamp(max=-SMALLEST)))


def of_backbone(path: Path) -> Teacher:
    """Make a teacher whose encoder has the published ImageNet weights, with a decoder that has learned nothing.

    Raises:
        CheckpointError: see ``backbone.published``; or the file is no EfficientNet-Lite2.

    """
    teacher, state = Teacher(), published(path)
    try:
        teacher.encoder.load_published(state)
    except (KeyError, RuntimeError, TypeError) as error:
        raise CheckpointError(
            path, "is not an EfficientNet-Lite2 backbone: its names or shapes differ; give efficientnet-lite2-*.pth"
        ) from error
    return teacher


def load(path: Path) -> Teacher:
    """Load a teacher that ``pranet train teacher`` has written.

    Raises:
        CheckpointError: the file is missing or damaged, or holds another network.

    """
    teacher, data = Teacher(), read(path)
    try:
        teacher.load_state_dict(safetensors.torch.load(data))
    except Exception as error:  # SafetensorError, RuntimeError, or another error that a malicious header causes
        raise CheckpointError(path, "is not a teacher; train one with the recipe teacher") from error
    return teacher


def _normed(in_channels: int, kernel: int, *more: nn.Module) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, CHANNELS, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(GROUPS, CHANNELS), *more)


def rescaled(x: Tensor) -> Tensor:
    """Map RGB normalised by ImageNet's mean and deviation to what EfficientNet-Lite takes."""
    mean, std = (255 * x.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (x * (std / RANGE) + (mean - CENTRE) / RANGE).contiguous(memory_format=torch.channels_last)


def _resized(x: Tensor, like: Tensor) -> Tensor:
    """Resize bilinearly to the height and width of another."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
