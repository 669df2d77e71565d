"""The last layers of the partial decoder as two convolutions that compute S6 only where S3 needs it.

After its gates the decoder is linear: conv_upsample5 on some of the channels, then conv_concat3, conv4 and conv5. S3
uses S6 only at stride 32: the mean of 2x2 pixels around 4i + 1.5 in both directions, none of which is on the border.
So the padding of conv4 never matters, and conv_concat3, conv4, conv5 and the mean become one convolution of stride 4.
The padding of conv_concat3 does matter: it is zero, but a merged conv_upsample5 would compute other values there. So
its kernel is split into nine parts, and each is multiplied by zero where it covers padding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.pranet import CHANNELS, PartialDecoder, PraNet
from model.network.pranet import STRIDE as FROM_PICTURE
from model.rewrites.folding import bias_of
from model.transforms import SIZE

STRIDE = 4  # from S6 at stride 8 to stride 32


def fold_end_of_decoder(network: PraNet, height: int = SIZE, width: int = SIZE) -> PraNet:
    """Replace the end of the decoder by its cheaper equivalent, in place; batch-norm must be folded.

    Afterwards the network accepts only pictures of ``height`` x ``width`` pixels, and ``maps`` no longer works.
    """
    folded = DecoderAtStride32(network.agg1, height // FROM_PICTURE, width // FROM_PICTURE)
    network.agg1 = folded  # type: ignore[assignment]
    return network


class DecoderAtStride32(nn.Module):
    """Partial decoder that computes S6 at stride 32, equal to S6 at stride 8 reduced to a quarter."""

    def __init__(self, decoder: PartialDecoder, height: int, width: int) -> None:
        """Take over the layers of a decoder with folded batch-norm; S6 has (height, width) at stride 32."""
        super().__init__()
        self.decoder = decoder
        self.register_buffer("inside", _inside(height, width), persistent=False)
        self.inside: Tensor
        mean = nn.Conv2d(1, 1, 2)
        nn.init.constant_(mean.weight, 1 / 4)
        nn.init.zeros_(bias_of(mean))
        last = decoder.conv_concat3.conv
        for each in (decoder.conv4.conv, decoder.conv5, mean):
            last = _composed(last, each)  # 6x6
        self.shallow = nn.Conv2d(CHANNELS, 1, 6, STRIDE, padding=1)  # from 4i - 1: two 3x3 kernels reach 2 pixels
        self.middle = nn.Conv2d(2 * CHANNELS, 9, 8, STRIDE, padding=2)
        with torch.no_grad():
            self.shallow.weight.copy_(last.weight[:, :CHANNELS])
            self.shallow.bias = last.bias
            parts = nn.Conv2d(2 * CHANNELS, 9, 6)
            parts.weight.copy_(_parts(last.weight[:, CHANNELS:]))
            nn.init.zeros_(bias_of(parts))
            merged = _composed(decoder.conv_upsample5.conv, parts)
            self.middle.weight, self.middle.bias = merged.weight, merged.bias
        del decoder.conv_upsample5, decoder.conv_concat3, decoder.conv4, decoder.conv5

    def forward(self, deep: Tensor, middle: Tensor, shallow: Tensor) -> Tensor:
        """Map (B, 32, h, w), (B, 32, 2h, 2w), (B, 32, 4h, 4w) to logits (B, 1, h, w)."""
        shallow_gated, middle_merged = self.decoder.gate(deep, middle, shallow)
        parts = self.middle(middle_merged)  # (B, 9, h, w)
        out: Tensor = self.shallow(shallow_gated) + (parts * self.inside).sum(dim=1, keepdim=True)
        return out

    def at_stride_32(self, logits: Tensor) -> Tensor:
        """Return the logits unchanged: they are at stride 32 already."""
        return logits


def _parts(weight: Tensor) -> Tensor:
    """Split a kernel (1, C, 6, 6) by first, middle and last rows and columns: (9, C, 6, 6), zero elsewhere."""
    rows = torch.zeros(3, 6)
    rows[0, 0] = rows[1, 1:5] = rows[2, 5] = 1
    return (weight * torch.einsum("yh,xw->yxhw", rows, rows)[:, :, None]).reshape(9, -1, 6, 6)


def _inside(height: int, width: int) -> Tensor:
    """Return (9, height, width): 0 where a part of the kernel covers padding instead of pixels, else 1."""
    rows, columns = torch.ones(3, height), torch.ones(3, width)
    for each in (rows, columns):
        each[0, 0] = each[2, -1] = 0
    return torch.einsum("yh,xw->yxhw", rows, columns).reshape(9, height, width)


def _composed(first: nn.Conv2d, then: nn.Conv2d) -> nn.Conv2d:
    """Return one convolution, without padding, that equals ``first`` followed by ``then``."""
    height, width = (a + b - 1 for a, b in zip(first.kernel_size, then.kernel_size, strict=True))
    merged = nn.Conv2d(first.in_channels, then.out_channels, (height, width))
    with torch.no_grad():
        merged.weight.copy_(F.conv_transpose2d(then.weight, first.weight))  # convolves the two kernels
        merged.bias = nn.Parameter(torch.einsum("oihw,i->o", then.weight, bias_of(first)) + bias_of(then))
    return merged
