"""Convolution, bias, residual sum and ReLU as one cuDNN kernel: the same function with less memory traffic."""

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn


def fuse_activations(network: nn.Module) -> fx.GraphModule:
    """Trace a network with folded batch-norm, and fuse each ReLU and residual sum into the convolution before it.

    The result runs on CUDA GPUs only.
    """
    traced = fx.symbolic_trace(network)
    _drop_identities(traced)
    for node in list(traced.graph.nodes):
        if not _is_relu(traced, node):
            continue
        source = node.args[0]
        if _is_conv(traced, source) and len(source.users) == 1:
            _replace(traced, node, source, torch.cudnn_convolution_relu)
        elif source.op == "call_function" and source.target is operator.add and len(source.users) == 1:
            convs = [each for each in source.args if _is_conv(traced, each) and len(each.users) == 1]
            if convs:
                other = source.args[0] if convs[0] is source.args[1] else source.args[1]
                _replace(traced, node, convs[0], torch.cudnn_convolution_add_relu, other, 1.0)
    traced.graph.eliminate_dead_code()
    traced.recompile()
    traced.graph.owning_module = None  # a cycle, which would delay freeing a replaced network
    return traced


def _replace(traced: fx.GraphModule, relu: fx.Node, conv: fx.Node, kernel: Callable[..., Any], *residual: Any) -> None:
    module = traced.get_submodule(str(conv.target))
    assert isinstance(module, nn.Conv2d)
    with traced.graph.inserting_before(relu):
        weight, bias = (traced.graph.get_attr(f"{conv.target}.{name}") for name in ("weight", "bias"))
        shape = (module.stride, module.padding, module.dilation, module.groups)
        fused = traced.graph.call_function(kernel, (conv.args[0], weight, *residual, bias, *shape))
    relu.replace_all_uses_with(fused)
    traced.graph.erase_node(relu)


def _drop_identities(traced: fx.GraphModule) -> None:
    for node in list(traced.graph.nodes):
        if node.op == "call_module" and isinstance(traced.get_submodule(str(node.target)), nn.Identity):
            node.replace_all_uses_with(node.args[0])
            traced.graph.erase_node(node)


def _is_relu(traced: fx.GraphModule, node: Any) -> bool:
    if node.op == "call_module":
        return isinstance(traced.get_submodule(str(node.target)), nn.ReLU)
    return bool(node.op == "call_function" and node.target is F.relu)


def _is_conv(traced: fx.GraphModule, node: Any) -> bool:
    return bool(node.op == "call_module" and isinstance(traced.get_submodule(str(node.target)), nn.Conv2d))
