"""Batch-norm merged into the convolutions before it: the same function in fewer layers."""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.network.pranet import STRIDE

Network = TypeVar("Network", bound=nn.Module)


def fold_batch_norm(network: Network) -> Network:
    """Fold each batch-norm into its convolution, in place; the network must be in evaluation mode."""
    folded: dict[nn.Module, nn.Module] = {}
    for norm, conv in convolutions(network).items():
        folded[conv] = fuse_conv_bn_eval(conv, norm)
        folded[norm] = nn.Identity()
    swap(network, folded)
    return network


def convolutions(network: nn.Module) -> dict[nn.BatchNorm2d, nn.Conv2d]:
    """Return which convolution computes the input of each batch-norm; the network runs once to observe it.

    The statistics of its batch-norms must be frozen: they are in evaluation mode.
    """
    made_by: dict[int, nn.Conv2d] = {}
    pairs: dict[nn.BatchNorm2d, nn.Conv2d] = {}
    alive: list[Tensor] = []  # ids are unique only while their tensors live

    def watch(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            made_by[id(output)] = module
            alive.append(output)
        elif isinstance(module, nn.BatchNorm2d):
            pairs[module] = made_by[id(inputs[0])]

    hooks = [module.register_forward_hook(watch) for module in network.modules()]
    with torch.inference_mode():
        network(next(network.parameters()).new_zeros(1, 3, 2 * STRIDE, 2 * STRIDE))
    for hook in hooks:
        hook.remove()
    return pairs


def bias_of(conv: nn.Conv2d) -> Tensor:
    """Return the bias of a convolution whose batch-norm is folded; folding always adds one."""
    assert conv.bias is not None
    return conv.bias


def swap(network: nn.Module, others: dict[nn.Module, nn.Module]) -> None:
    """Put other modules in the place of some, in place."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if child in others:
                setattr(parent, name, others[child])
