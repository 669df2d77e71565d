"""Layers with nothing between them made one: the same function with fewer of them."""

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.pranet import STRIDE, PraNet

Network = TypeVar("Network", bound=nn.Module)


def fold_batch_norm(network: Network) -> Network:
    """Fold each batch-norm of a network in evaluation mode into its convolution, in place.

    Which convolution feeds which batch-norm is seen, not assumed: the network runs once, and a batch-norm belongs
    to the convolution that made its very input.
    """
    made_by: dict[int, nn.Conv2d] = {}
    pairs: dict[nn.BatchNorm2d, nn.Conv2d] = {}
    alive: list[Tensor] = []  # an id is unique only while its tensor lives

    def watch(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            made_by[id(output)] = module
            alive.append(output)
        elif isinstance(module, nn.BatchNorm2d):
            pairs[module] = made_by[id(inputs[0])]

    hooks = [module.register_forward_hook(watch) for module in network.modules()]
    with torch.inference_mode():
        network(torch.zeros(1, 3, 2 * STRIDE, 2 * STRIDE))
    for hook in hooks:
        hook.remove()
    _replace(network, pairs)
    return network


def fold_end_of_decoder(network: PraNet) -> PraNet:
    """Fold the last three convolutions of the partial decoder into one that gives S6 at stride 32, in place.

    They are linear with nothing between them, and for S3 the network reads S6 at stride 32 only: at 4i + 1.5 both ways,
    the mean of two pixels by two. None of them lies on the border, so what pads the convolutions between the first and
    the last is never read, and one convolution is the same function. ``maps`` is not: S6 at its own size is lost.

    Batch-norm must have been folded.
    """
    decoder = network.agg1
    mean = nn.Conv2d(1, 1, 2)
    nn.init.constant_(mean.weight, 1 / 4)
    nn.init.zeros_(_bias(mean))
    last = _composed(_composed(_composed(decoder.conv_concat3.conv, decoder.conv4.conv), decoder.conv5), mean)
    last.stride = (4, 4)
    last.padding = (1, 1)  # 4i + 1 less the reach of two 3x3 kernels
    _swap(network, {decoder.conv_concat3: nn.Identity(), decoder.conv4: nn.Identity(), decoder.conv5: last})
    return network


def _composed(first: nn.Conv2d, then: nn.Conv2d) -> nn.Conv2d:
    """Return the convolution, without padding, that does what two do."""
    height, width = (a + b - 1 for a, b in zip(first.kernel_size, then.kernel_size, strict=True))
    merged = nn.Conv2d(first.in_channels, then.out_channels, (height, width))
    with torch.no_grad():
        merged.weight.copy_(F.conv_transpose2d(then.weight, first.weight))  # convolves two kernels
        merged.bias = nn.Parameter(torch.einsum("oihw,i->o", then.weight, _bias(first)) + _bias(then))
    return merged


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None  # at least that of the batch-norm
    return conv.bias


def _replace(network: nn.Module, pairs: dict[nn.BatchNorm2d, nn.Conv2d]) -> None:
    folded: dict[nn.Module, nn.Module] = {}
    for norm, conv in pairs.items():
        folded[conv] = fuse_conv_bn_eval(conv, norm)
        folded[norm] = nn.Identity()
    _swap(network, folded)


def _swap(network: nn.Module, others: dict[nn.Module, nn.Module]) -> None:
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if child in others:
                setattr(parent, name, others[child])
