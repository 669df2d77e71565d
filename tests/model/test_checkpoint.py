"""Weights files: what is read, what is written, and what is refused with a reason."""

import os
import pickle
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model.weights import checkpoint, weights_file
from model.weights.checkpoint import Storage
from model.weights.weights_file import CheckpointError, WeightsFile
from tests.support import reference
from tests.support.patching import Patches
from tests.support.processes import pranet

State = dict[str, Tensor]
FIRST = "resnet.conv1.0.weight"
VARIANCE = "resnet.bn1.running_var"


@pytest.fixture(scope="module")
def published() -> State:
    return reference.parameters()


@pytest.fixture(scope="module")
def thin() -> State:
    """Return parameters of the published shapes that take one number each, also in a file."""
    return {name: torch.ones(()).expand(shape) for name, shape in reference.published_shapes().items()}


def test_a_published_file_loads_unchanged(tmp_path: Path, published: State) -> None:
    path = tmp_path / "PraNet-19.pth"
    torch.save(published, path)
    loaded = checkpoint.load(path)
    assert "resnet.fc.weight" not in loaded.state
    assert all(torch.equal(value, published[name]) for name, value in loaded.state.items())
    assert torch.equal(loaded.network().state_dict()[FIRST], published[FIRST])


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda state: {f"module.{name}": value for name, value in state.items()}, id="DataParallel"),
        pytest.param(lambda state: {"epoch": 19, "state_dict": state}, id="training state"),
        pytest.param(
            lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}}, id="both"
        ),
        pytest.param(lambda state: {f"_orig_mod.{name}": value for name, value in state.items()}, id="compiled"),
        pytest.param(lambda state: {f"model.{name}": value for name, value in state.items()}, id="held by a module"),
        pytest.param(
            lambda state: {f"module._orig_mod.net.{name}": value for name, value in state.items()}, id="all of these"
        ),
        pytest.param(lambda state: {"model": state, "optimizer": {"state": {}}}, id="model"),
        pytest.param(lambda state: {"model_state_dict": state, "epoch": 3}, id="model_state_dict"),
        pytest.param(lambda state: {"net": {"state_dict": state}, "acc": 0.9}, id="net"),
        pytest.param(
            lambda state: {name: value for name, value in state.items() if ".fc." not in name}, id="no classifier"
        ),
        pytest.param(
            lambda state: {name: value for name, value in state.items() if "num_batches" not in name}, id="no counters"
        ),
        pytest.param(
            lambda state: {name: torch.nn.Parameter(value, value.is_floating_point()) for name, value in state.items()},
            id="Parameters",
        ),
    ],
)
def test_the_usual_wrappings_are_taken_off(tmp_path: Path, thin: State, wrap: Callable[[State], Any]) -> None:
    torch.save(wrap(thin), tmp_path / "w.pth")
    state = checkpoint.load(tmp_path / "w.pth").state
    assert set(state) == {name for name in thin if ".fc." not in name}


def test_a_file_of_an_old_release_of_pytorch_loads(tmp_path: Path, thin: State) -> None:
    torch.save(thin, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    assert set(checkpoint.load(tmp_path / "w.pth").state) <= set(thin)


@pytest.mark.parametrize("storage", ["fp32", "fp16", "int8"])
def test_what_is_written_is_read_again(tmp_path: Path, published: State, storage: Storage) -> None:
    path = tmp_path / "w.safetensors"
    checkpoint.save(path, published, storage, {"name": "reference"})
    loaded = checkpoint.load(path)
    assert loaded.model_id == f"reference-{loaded.sha256[:8]}"
    for name, value in loaded.state.items():
        assert value.dtype == published[name].dtype
        error = (value - published[name]).abs().max()
        assert error <= _rounding(published[name], storage), name


def _rounding(value: Tensor, storage: str) -> float:
    largest = float(value.abs().max())
    if storage == "int8" and value.ndim == 4:
        return 0.5001 * largest / 127
    return largest * 2**-11 if storage == "fp16" else 0.0


def test_a_header_whose_length_begins_as_a_pickle_does_is_read(tmp_path: Path, published: State) -> None:
    path = tmp_path / "weights.safetensors"
    checkpoint.save(path, published, "fp16", {"name": "x"})
    missing = (0x80 - path.read_bytes()[0]) % 0x100
    checkpoint.save(path, published, "fp16", {"name": "x" * (1 + missing)})
    assert path.read_bytes()[0] == 0x80
    assert checkpoint.load(path).metadata["storage"] == "fp16"


def test_eight_bits_a_weight_keep_the_file_below_32_mebibytes(weights: Path) -> None:
    assert weights.stat().st_size < 32 * 2**20
    sizes = checkpoint.storage_of(weights)
    assert next(iter(sizes)) == "int8"


@given(name=st.text(max_size=80))
def test_a_model_id_can_stand_in_a_header_whatever_the_file_is_called_inside(name: str) -> None:
    model_id = WeightsFile(Path("w"), "0" * 64, {"name": name}, None).model_id
    assert model_id.isascii()
    assert model_id.isprintable()
    assert " " not in model_id


class _Code:
    """A pickle that would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


def _without(state: State, name: str) -> State:
    return {key: value for key, value in state.items() if key != name}


STATES: dict[str, tuple[Callable[[State], Any], str]] = {
    "a missing key": (lambda state: _without(state, FIRST), f"lacks {FIRST}"),
    "an unknown key": (lambda state: state | {"head.weight": torch.ones(1)}, "unexpected head.weight"),
    "another network": (lambda state: {"conv1.weight": torch.ones(64, 3, 7, 7)}, "is not a PraNet"),
    "another shape": (lambda state: state | {FIRST: torch.ones(64, 3, 7, 7)}, "(64, 3, 7, 7) instead of (32, 3, 3, 3)"),
    "a huge shape": (
        lambda state: state | {FIRST: torch.ones((), dtype=torch.int8).expand(2**40, 3, 3, 3)},
        "instead of (32, 3, 3, 3)",
    ),
    "not a number": (lambda state: state | {FIRST: torch.full((32, 3, 3, 3), torch.nan)}, "infinite or NaN values in"),
    "infinity": (lambda state: state | {FIRST: torch.full((32, 3, 3, 3), torch.inf)}, "infinite"),
    "a negative variance": (lambda state: state | {VARIANCE: -state[VARIANCE]}, f"negative variances in {VARIANCE}"),
    "whole numbers": (
        lambda state: state | {FIRST: torch.ones(32, 3, 3, 3, dtype=torch.int8)},
        "without a matching scale",
    ),
    "a sparse tensor": (lambda state: state | {FIRST: torch.ones(32, 3, 3, 3).to_sparse()}, "not dense tensors"),
    "a number": (lambda state: state | {FIRST: 1.0}, f"not dense tensors: {FIRST}"),
    "a list": (lambda state: list(state.values()), "contains a list"),
    "numbers for names": (lambda state: dict(enumerate(state.values())), "not a dictionary of named tensors"),
    "code": (
        lambda state: state | {"run": _Code()},
        "holds an object of posix.system, which could run code",
    ),
    "a module": (lambda state: torch.nn.Linear(2, 2), "holds an object of torch.nn.modules.linear.Linear"),
    "a module in a wrapper": (
        lambda state: {"model": torch.nn.Linear(2, 2)},
        "save the weights alone: torch.save(network.state_dict(), 'weights.pth')",
    ),
    "a name twice": (lambda state: state | {f"module.{FIRST}": state[FIRST]}, f"holds {FIRST} twice"),
}


@pytest.mark.parametrize("fault", STATES)
def test_a_pth_file_is_refused_with_its_name_and_the_reason(
    tmp_path: Path, thin: State, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, reason = STATES[fault]
    monkeypatch.chdir(tmp_path)
    torch.save(make(thin), tmp_path / "bad.pth")
    assert reason in _refusal(tmp_path / "bad.pth")
    assert not (tmp_path / "executed").exists()


def test_a_scripted_network_is_refused_with_the_way_to_its_weights(tmp_path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):  # scripts are deprecated in newer releases
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "bad.pth")
    assert "save torch.jit.load(FILE).state_dict()" in _refusal(tmp_path / "bad.pth")


def _safetensors(state: State) -> bytes:
    return safetensors.torch.save(state)


FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "is empty"),
    "text": (lambda: b"<html>404: Not Found</html>", "neither a readable safetensors nor a PyTorch file"),
    "half an archive": (lambda: b"PK\x03\x04" + bytes(1000), "damaged or unsafe PyTorch file"),
    "bare code": (lambda: pickle.dumps(_Code()), "unsafe PyTorch file"),
    "a huge header": (lambda: struct.pack("<Q", 2**62) + b"{}", "neither a readable safetensors"),
    "a broken header": (lambda: struct.pack("<Q", 2) + b"[]", "neither a readable safetensors"),
    "half a tensor": (lambda: _safetensors({"a": torch.ones(100)})[:-4], "neither a readable safetensors"),
    "another network": (lambda: _safetensors({"a": torch.ones(100)}), "is not a PraNet"),
}


@pytest.mark.parametrize("fault", FILES)
def test_a_file_is_refused_with_its_name_and_the_reason(tmp_path: Path, fault: str) -> None:
    make, reason = FILES[fault]
    path = tmp_path / "bad.bin"
    path.write_bytes(make())
    assert reason in _refusal(path)


def test_a_truncated_file_is_refused(tmp_path: Path, weights: Path) -> None:
    path = tmp_path / "half.safetensors"
    path.write_bytes(weights.read_bytes()[: 2**20])
    assert _refusal(path).endswith("is neither a readable safetensors nor a PyTorch file; download or copy it again")


def _hole(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(2**12) + data[middle + 2**12 :]


def _flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def _forge(data: bytes) -> bytes:
    return data.replace(b'"pranet"', b'"PraNet"', 1)


@pytest.mark.parametrize("damage", [_hole, _flip, _forge])
def test_damage_that_leaves_every_value_possible_is_noticed(
    tmp_path: Path, weights: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(damage(weights.read_bytes()))
    assert "do not match its digest" in _refusal(path)
    with pytest.raises(CheckpointError, match="do not match its digest"):
        weights_file.identify(path)


def test_a_damaged_archive_of_pytorch_is_noticed(tmp_path: Path, published: State) -> None:
    path = tmp_path / "w.pth"
    torch.save(published, path)
    path.write_bytes(_flip(path.read_bytes()))
    assert "does not match its checksum" in _refusal(path)


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    assert "Is a directory" in _refusal(tmp_path)
    assert "No such file" in _refusal(tmp_path / "absent.pth")


def test_an_endless_file_is_refused(patched: Patches) -> None:
    patched(weights_file, "MAX_BYTES", 2**20)
    assert "which is too large for PraNet" in _refusal(Path("/dev/zero"))


def test_an_unreadable_file_is_refused(patched: Patches) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    patched(Path, "open", refuse)  # a real mode of 0 does not keep root out
    assert "Permission denied" in _refusal(Path("w.pth"))


def test_serve_says_one_line_about_weights_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "bad.pth").write_bytes(pickle.dumps(_Code()))
    done = pranet("serve", "--weights", tmp_path / "bad.pth", "--port", 0, "--grpc-port", 0)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"pranet: weights file {tmp_path / 'bad.pth'}: is a damaged or unsafe")
    assert "(Unsupported operand" in line


def _refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path)
    message = str(caught.value)
    assert message.startswith(f"weights file {path}: ")
    assert "\n" not in message
    return message
