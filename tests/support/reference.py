"""The parameters that the published implementation was run with to make ``tests/data/parity``."""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.weights.checkpoint import Checkpoint
from tests.support.pictures import DATA

PARITY = DATA / "parity"
CENTRE = 7.5  # of the last bias of the decoder: brings the logits around 0, so that masks are neither empty nor full


def published_shapes() -> dict[str, list[int]]:
    """Return the shape of each parameter in the published checkpoints, by name."""
    shapes: dict[str, list[int]] = json.loads((PARITY / "published-keys.json").read_text())
    return shapes


def parameters() -> dict[str, Tensor]:
    """Draw every parameter from a generator that is seeded with its name."""
    return {name: _draw(name, shape) for name, shape in published_shapes().items()}


def checkpoint() -> Checkpoint:
    """Return the parameters as if they had been loaded from a file."""
    state = {name: value for name, value in parameters().items() if not name.startswith("resnet.fc.")}
    return Checkpoint(Path("reference"), "0" * 64, {}, None, state)


def _draw(name: str, shape: list[int]) -> Tensor:
    kind = name.rpartition(".")[2]
    if kind == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    if name == "agg1.conv5.bias":
        return torch.full(shape, CENTRE)
    normal = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(shape)
    if kind == "running_var":
        value = 1 + 0.2 * np.abs(normal)
    elif kind in ("running_mean", "bias"):
        value = 0.1 * normal
    elif len(shape) == 1:
        value = 1 + 0.1 * normal
    else:
        value = normal * math.sqrt(1.2 / math.prod(shape[1:]))
    return torch.from_numpy(np.asarray(value, dtype=np.float32))
