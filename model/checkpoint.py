"""A weights file -> a loaded PraNet: safe formats only, strict key match, one clear error.

Read: safetensors, and ``.pth`` files as PyTorch saves them (``weights_only=True``, so nothing in them is executed).
Written: safetensors, whose convolution weights may be stored as 8-bit integers ("int8" storage): one byte a weight
and one float32 scale an output channel, under ``<name>.scale``. They are expanded when loaded; the arithmetic of
the network is not quantised.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from model.errors import UserError
from model.pranet import PraNet

State = dict[str, Tensor]
Storage = Literal["int8", "fp16", "fp32"]

SCALE_SUFFIX = ".scale"
INT8_LIMIT = 127  # symmetric: -128 is not used
UNUSED_PREFIX = "resnet.fc."  # ImageNet classifier, present in the published files, never evaluated
COUNTER_SUFFIX = ".num_batches_tracked"  # training bookkeeping, optional in a file
NAMED_KEYS = 4  # how many offending keys an error spells out


class CheckpointError(UserError):
    """A weights file cannot be used; the message names the file and the reason."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"weights file {path}: {reason}")


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a weights file: float32 parameters under their published names, and where they come from."""

    path: Path
    sha256: str
    state: State
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def model_id(self) -> str:
        """A short name of these weights that changes with their contents, such as ``pranet-1a2b3c4d``."""
        return f"{self.metadata.get('name', 'pranet')}-{self.sha256[:8]}"

    def network(self) -> PraNet:
        """Build a PraNet in evaluation mode that holds these parameters."""
        with torch.device("meta"):  # no time spent on an initialisation that is thrown away
            network = PraNet()
        network.load_state_dict(self.state, assign=True)
        return network.requires_grad_(False).eval()


def load(path: Path) -> Checkpoint:
    """Read and check a weights file.

    Raises:
        CheckpointError: the file is missing, damaged, unsafe, or not a PraNet.

    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(path, error.strerror or str(error)) from error
    if not data:
        raise CheckpointError(path, "is empty")
    raw, metadata = _parse_torch(path, data) if _is_torch_file(data) else _parse_safetensors(path, data)
    state = _published_names(path, raw)
    expanded = _expand(path, state)
    _check(path, expanded)
    return Checkpoint(path, hashlib.sha256(data).hexdigest(), expanded, metadata)


def save(path: Path, state: Mapping[str, Tensor], storage: Storage, metadata: Mapping[str, str]) -> None:
    """Write float parameters as safetensors; ``storage`` says how convolution weights are kept."""
    kept = {name: value for name, value in state.items() if not name.endswith(COUNTER_SUFFIX)}
    stored: State = {}
    for name, value in kept.items():
        if storage == "int8" and value.ndim == 4:
            stored[name], stored[name + SCALE_SUFFIX] = _quantise(value.float())
        else:
            stored[name] = value.to(torch.float16 if storage == "fp16" else torch.float32).contiguous()
    safetensors.torch.save_file(stored, path, metadata={**metadata, "storage": storage})


def storage_of(path: Path) -> dict[str, int]:
    """Count the bytes that each dtype takes in a safetensors file, largest first."""
    sizes: dict[str, int] = {}
    with safetensors.safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - a safetensors handle is not a dict
            tensor = file.get_tensor(name)
            dtype = str(tensor.dtype).removeprefix("torch.")
            sizes[dtype] = sizes.get(dtype, 0) + tensor.nbytes
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def _is_torch_file(data: bytes) -> bool:
    return data[:4] == b"PK\x03\x04" or data[:1] == b"\x80"  # zip archive, or the bare pickle of old releases


def _parse_torch(path: Path, data: bytes) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile pickle can raise anything
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(path, f"damaged or unsafe PyTorch file ({reason[:200]})") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise CheckpointError(path, f"holds a {type(content).__name__}, not a dictionary of named tensors")
    return content, {}


def _parse_safetensors(path: Path, data: bytes) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        state: dict[str, Any] = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except Exception as error:  # SafetensorError, or whatever a hostile header provokes
        reason = "neither a readable safetensors nor a PyTorch file"
        raise CheckpointError(path, f"{reason} ({str(error)[:200]})") from error
    return state, header.get("__metadata__", {})


def _published_names(path: Path, raw: Mapping[str, Any]) -> State:
    """Strip ``module.`` (DataParallel), leave out what is never evaluated, and insist on tensors."""
    names = {name: name.removeprefix("module.") for name in raw}
    state = {names[name]: value for name, value in raw.items() if not names[name].startswith(UNUSED_PREFIX)}
    odd = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if odd:
        raise CheckpointError(path, f"holds values that are not tensors: {_some(odd)}")
    return state


def _quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round float32 (O, I, kH, kW) to int8 with a scale (O,) for each output channel."""
    scale = weight.abs().amax(dim=(1, 2, 3)).clamp_min(torch.finfo(torch.float32).tiny) / INT8_LIMIT
    return torch.round(weight / scale[:, None, None, None]).to(torch.int8), scale


def _expand(path: Path, stored: State) -> State:
    state: State = {}
    for name, value in stored.items():
        if name.endswith(SCALE_SUFFIX):
            continue
        scale = stored.get(name + SCALE_SUFFIX)
        if value.dtype == torch.int8 and value.ndim == 4 and scale is not None and scale.shape == value.shape[:1]:
            state[name] = value.float() * scale.float()[:, None, None, None]
        elif value.is_floating_point():
            state[name] = value.float()
        elif name.endswith(COUNTER_SUFFIX):
            state[name] = value
        else:
            raise CheckpointError(path, f"{name} is stored as {value.dtype} without a fitting scale")
    return state


def _check(path: Path, state: State) -> None:
    """Compare names, shapes and values with what PraNet needs; add counters that the file leaves out."""
    with torch.device("meta"):
        wanted = PraNet().state_dict()
    for name, tensor in wanted.items():
        if name.endswith(COUNTER_SUFFIX):
            state.setdefault(name, torch.zeros(tensor.shape, dtype=tensor.dtype))
    missing = [name for name in wanted if name not in state]
    unexpected = [name for name in state if name not in wanted]
    if missing or unexpected:
        faults = [f"lacks {_some(missing)}"] * bool(missing) + [f"has unknown {_some(unexpected)}"] * bool(unexpected)
        raise CheckpointError(path, "is not a PraNet: it " + " and ".join(faults))
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if state[name].shape != tensor.shape
    ]
    if shapes:
        raise CheckpointError(path, f"has tensors of another shape: {_some(shapes)}")
    broken = [name for name, value in state.items() if not torch.isfinite(value).all()]
    if broken:
        raise CheckpointError(path, f"holds infinite or undefined values in {_some(broken)}")


def _some(names: list[str]) -> str:
    more = len(names) - NAMED_KEYS
    return ", ".join(names[:NAMED_KEYS]) + (f" and {more} more" if more > 0 else "")
