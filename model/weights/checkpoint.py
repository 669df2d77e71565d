"""Loading and saving of weights files: safe formats only, strict key match.

Files are read as safetensors or as PyTorch's ``.pth``, with ``weights_only=True`` so that no code in them runs.
They are written as safetensors. With "int8" storage each convolution weight takes one byte, and each output channel
has a float32 scale under ``<name>.scale``. Loading expands them to float32; the network does not compute in int8.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from model import files
from model.errors import TargetError
from model.network.pranet import PraNet
from model.targets import Targets
from model.weights import torch_file
from model.weights.weights_file import (
    DIGEST_KEY,
    NO_DIGEST,
    CheckpointError,
    WeightsFile,
    is_torch_file,
    of_bytes,
    read,
    sealed,
    unreadable,
)

State = dict[str, Tensor]
Storage = Literal["int8", "fp16", "fp32"]

SCALE_SUFFIX = ".scale"
INT8_LIMIT = 127  # symmetric range: -128 is not used
UNUSED_PREFIX = "resnet.fc."  # ImageNet classifier: in the published files, but not part of PraNet
COUNTER_SUFFIX = ".num_batches_tracked"  # counts training batches; optional in a file
TORCH_SUFFIXES = frozenset({".pth", ".pt", ".ckpt", ".bin"})  # names that PyTorch files usually have
NAMED_KEYS = 4  # how many wrong keys an error message lists


@dataclass(frozen=True)
class Checkpoint(WeightsFile):
    """A loaded weights file: its identity, and its float32 parameters under their published names."""

    state: State

    def network(self) -> PraNet:
        """Build a PraNet with these parameters, in evaluation mode."""
        with torch.device("meta"):  # skips an initialisation that would be overwritten
            network = PraNet()
        network.load_state_dict(self.state, assign=True)
        return network.requires_grad_(False).eval()


def load(path: Path) -> Checkpoint:
    """Load a weights file and check that it holds a PraNet.

    Raises:
        CheckpointError: the file is missing, damaged, unsafe to load, or not a PraNet.

    """
    data = read(path)
    raw = torch_file.parse(path, data) if is_torch_file(data) else _parse_safetensors(path, data)
    file = of_bytes(path, data)
    stored = _published_names(path, raw)
    _check_names_and_shapes(path, stored)
    state = _expand(path, stored)
    _check_values(path, state)
    return Checkpoint(path, file.sha256, file.metadata, file.presence, state)


def of_file(weights: WeightsFile) -> Checkpoint:
    """Load the weights of an identified file; a ``Checkpoint`` is returned unchanged.

    Raises:
        CheckpointError: the file cannot be used, or its contents have changed since it was identified.

    """
    if isinstance(weights, Checkpoint):
        return weights
    loaded = load(weights.path)
    if loaded.sha256 != weights.sha256:
        raise CheckpointError(weights.path, "was replaced while it was read; try again")
    return loaded


def check_target(targets: Targets, flag: str, path: Path) -> None:
    """Check the path of weights to write, which are safetensors whatever their name says.

    Raises:
        TargetError: its name is that of a PyTorch file, or see ``Targets.wants``.

    """
    if path.suffix.lower() in TORCH_SUFFIXES:
        raise TargetError(f"{flag} {path} would be a safetensors file; end its name with .safetensors")
    targets.wants(flag, path)


def save(path: Path, state: Mapping[str, Tensor], storage: Storage, metadata: Mapping[str, str]) -> None:
    """Write parameters as safetensors, whole or not at all.

    Args:
        path: the file to write.
        state: floating-point parameters under their published names.
        storage: type of the stored values. With int8, convolution weights are int8 and all others float32.
        metadata: entries for the header, such as the ``name`` in model ids.

    Raises:
        OSError: the file cannot be written.

    """
    kept = {name: value for name, value in state.items() if not name.endswith(COUNTER_SUFFIX)}
    stored: State = {}
    for name, value in kept.items():
        if storage == "int8" and value.ndim == 4:
            stored[name], stored[name + SCALE_SUFFIX] = _quantise(value.float())
        else:
            stored[name] = value.to(torch.float16 if storage == "fp16" else torch.float32).contiguous()
    described = {**metadata, "storage": storage, DIGEST_KEY: NO_DIGEST}
    files.write(path, sealed(_sorted_header(safetensors.torch.save(stored, described))))


def storage_of(path: Path) -> dict[str, int]:
    """Return the bytes that each dtype takes in a safetensors file, largest first."""
    sizes: dict[str, int] = {}
    with safetensors.safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - a safetensors handle is not a dict
            tensor = file.get_tensor(name)
            dtype = str(tensor.dtype).removeprefix("torch.")
            sizes[dtype] = sizes.get(dtype, 0) + tensor.nbytes
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def _sorted_header(data: bytes) -> bytes:
    """Sort the metadata, which safetensors writes in random order, so that equal weights give identical files."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return data[:8] + text.ljust(end - 8) + data[end:]


def _parse_safetensors(path: Path, data: bytes) -> dict[str, Any]:
    try:
        return dict(safetensors.torch.load(data))
    except Exception as error:  # SafetensorError, or another error that a malicious header causes
        raise unreadable(path) from error


def _published_names(path: Path, raw: Mapping[str, Any]) -> State:
    """Strip the prefixes of wrappers, drop the unused classifier, and require dense tensors."""
    named = torch_file.stripped(path, raw)
    state = {name: value for name, value in named.items() if not name.startswith(UNUSED_PREFIX)}
    odd = [name for name, value in state.items() if not isinstance(value, Tensor) or value.layout is not torch.strided]
    if odd:
        raise CheckpointError(path, f"contains values that are not dense tensors: {_some(odd)}")
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
            state[name] = value.detach().float()
        elif name.endswith(COUNTER_SUFFIX):
            state[name] = value
        else:
            raise CheckpointError(path, f"stores {name} as {value.dtype} without a matching scale")
    return state


def _check_names_and_shapes(path: Path, stored: State) -> None:
    """Check names and shapes before any value is expanded; add the optional counters that the file omits."""
    with torch.device("meta"):
        wanted = PraNet().state_dict()
    for name, tensor in wanted.items():
        if name.endswith(COUNTER_SUFFIX):
            stored.setdefault(name, torch.zeros(tensor.shape, dtype=tensor.dtype))
    missing = [name for name in wanted if name not in stored]
    unexpected = [name for name in stored if name.removesuffix(SCALE_SUFFIX) not in wanted]
    if missing or unexpected:
        faults = [f"lacks {_some(missing)}"] * bool(missing) + [f"has unexpected {_some(unexpected)}"] * bool(
            unexpected
        )
        raise CheckpointError(path, "is not a PraNet: it " + " and ".join(faults))
    shapes = [
        f"{name} {tuple(stored[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if stored[name].shape != tensor.shape
    ]
    if shapes:
        raise CheckpointError(path, f"has tensors of the wrong shape: {_some(shapes)}")


def _check_values(path: Path, state: State) -> None:
    ranges = {name: [float(end) for end in value.aminmax()] for name, value in state.items()}
    broken = [name for name, ends in ranges.items() if not all(map(math.isfinite, ends))]
    if broken:
        raise CheckpointError(path, f"contains infinite or NaN values in {_some(broken)}")
    negative = [name for name, ends in ranges.items() if name.endswith("running_var") and ends[0] < 0]
    if negative:
        raise CheckpointError(path, f"contains negative variances in {_some(negative)}")


def _some(names: list[str]) -> str:
    more = len(names) - NAMED_KEYS
    return ", ".join(names[:NAMED_KEYS]) + (f" and {more} more" if more > 0 else "")
