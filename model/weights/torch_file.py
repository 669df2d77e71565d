"""Files that PyTorch saved: read without running code in them, and without the wrappers that training code adds.

Networks are saved inside a dictionary beside the optimiser (``WRAPPERS``), and under prefixes (``PREFIXES``) by
``torch.nn.DataParallel``, ``torch.compile`` and modules that hold the network.
"""

import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from model.weights.weights_file import CheckpointError

WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network")  # the first that fits is taken
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")  # no name of the network begins with one
NO_FAULT = ("Weights only load failed", "Please file an issue")  # how PyTorch's lines begin that name no fault
OBJECT = re.compile(r"GLOBAL (?P<name>[\w.]+)")
SCRIPTED = "TorchScript"
HOW = "where it was made, save the weights alone: torch.save(network.state_dict(), 'weights.pth')"


def parse(path: Path, data: bytes) -> dict[str, Any]:
    """Return what a file of PyTorch holds under names, freed from ``WRAPPERS``; no code in it runs.

    Raises:
        CheckpointError: the file is damaged, needs code to be loaded, or holds no dictionary of names.

    """
    try:
        with warnings.catch_warnings(action="ignore"):  # about old file formats; real faults raise errors
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        damaged = data[:2] == b"PK" and zipfile.ZipFile(io.BytesIO(data)).testzip()  # PyTorch does not verify checksums
    except Exception as error:  # a damaged or malicious pickle can raise anything
        raise CheckpointError(path, _fault(error)) from error
    if damaged:
        raise CheckpointError(path, f"is damaged: {damaged} does not match its checksum; download or copy it again")
    while isinstance(content, dict) and (inner := _inner(content)) is not None:
        content = inner
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise CheckpointError(path, f"contains a {type(content).__name__}, not a dictionary of named tensors; {HOW}")
    return content


def _inner(content: dict[Any, Any]) -> dict[Any, Any] | None:
    return next((content[name] for name in WRAPPERS if isinstance(content.get(name), dict)), None)


def stripped(path: Path, named: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same values under their names without ``PREFIXES``.

    Raises:
        CheckpointError: two of them would have the same name.

    """
    found: dict[str, Any] = {}
    for name, value in named.items():
        short = name
        while prefix := next((each for each in PREFIXES if short.startswith(each)), ""):
            short = short.removeprefix(prefix)
        if short in found:
            raise CheckpointError(path, f"holds {short} twice, under different prefixes; {HOW}")
        found[short] = value
    return found


def _fault(error: Exception) -> str:
    """Return what is wrong with a file; PyTorch's own messages advise to load it unsafely."""
    text = str(error)
    if SCRIPTED in text:
        return "is a TorchScript program, not weights; save torch.jit.load(FILE).state_dict() with torch.save"
    if isinstance(error, pickle.UnpicklingError) and (found := OBJECT.search(text)):
        return f"holds an object of {found['name']}, which could run code, so it is not loaded; {HOW}"
    lines = [line for line in text.splitlines() if line.strip()]
    if isinstance(error, pickle.UnpicklingError):
        lines = [line for line in lines if not line.startswith(NO_FAULT)]
    sentence = lines[0].partition(". ")[0] if lines else type(error).__name__
    return f"is a damaged or unsafe PyTorch file ({sentence.strip().rstrip('.')[:200]}); save its state_dict again"
