"""A published ImageNet checkpoint of Res2Net-50 v1b -> the backbone of a PraNet."""

from pathlib import Path

import torch

from model.network.res2net import Res2Net50
from model.weights.weights_file import CheckpointError


def load(backbone: Res2Net50, path: Path) -> None:
    """Load the published key names (``res2net50_v1b_26w_4s-*.pth``) strictly; its classifier ``fc.*`` is left out.

    Raises:
        CheckpointError: the file is unsafe, or its names or shapes do not fit.

    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        content = content.get("state_dict", content)
        state = {name.removeprefix("module."): value for name, value in content.items()}
        backbone.load_state_dict({name: value for name, value in state.items() if not name.startswith("fc.")})
    except Exception as error:  # a damaged or hostile pickle can raise anything
        raise CheckpointError(path, f"is not a Res2Net-50 v1b backbone ({str(error)[:200]})") from error
