"""Exponential moving average of a network's weights."""

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


class AverageWeights(Generic[Network]):
    """Keeps ``network``, whose floating-point parameters and buffers trail those of the network in training.

    The decay grows from 0.1 to ``decay`` over the first updates, so the start is soon forgotten.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.decay = decay
        self._tensors = _floats(self.network), _floats(network)  # collected once: it takes as long as a small step

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights that the network in training has after ``step`` steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        trailing, leading = self._tensors
        torch._foreach_lerp_(trailing, leading, 1 - decay)


def _floats(network: nn.Module) -> list[Tensor]:
    return [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]
