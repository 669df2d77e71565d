"""A published ImageNet checkpoint of Res2Net-50 v1b -> the backbone of a PraNet."""

from pathlib import Path
from typing import Any

from model.network.res2net import Res2Net50
from model.weights import torch_file
from model.weights.weights_file import CheckpointError, read


def load(backbone: Res2Net50, path: Path) -> None:
    """Load the published key names (``res2net50_v1b_26w_4s-*.pth``) strictly; its classifier ``fc.*`` is left out.

    Raises:
        CheckpointError: see ``published``; or its names or shapes do not fit.

    """
    state = {name: value for name, value in published(path).items() if not name.startswith("fc.")}
    try:
        backbone.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            path, "is not a Res2Net-50 v1b backbone: its names or shapes differ; give res2net50_v1b_26w_4s-*.pth"
        ) from error


def published(path: Path) -> dict[str, Any]:
    """Read the tensors of a file of PyTorch under their names, without running code in it.

    Raises:
        CheckpointError: the file is missing, damaged, unsafe, or holds no named tensors.

    """
    return torch_file.stripped(path, torch_file.parse(path, read(path)))
