"""The state of an unfinished run on disk: everything that a resumed run needs to go on as if never broken."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from model import files
from model.errors import UserError

FILE, DESCRIPTION = "state.pt", "run.json"
LENGTH = frozenset({"steps", "epochs", "minutes"})  # of a recipe: a resumed run may have another one


@dataclass
class Progress:
    """How far a run is: optimiser steps done, seconds spent on them, and the best validation Dice so far."""

    step: int = 0
    seconds: float = 0.0
    best: float = -1.0
    run: str = ""  # tells it from an earlier run in the same folder


def save(folder: Path, progress: Progress, **parts: nn.Module | torch.optim.Optimizer) -> None:
    """Write ``state.pt`` so that a kill at any moment leaves either the old file or the new one."""
    content: dict[str, Any] = {name: part.state_dict() for name, part in parts.items()}
    content["progress"] = vars(progress)
    with files.replacing(folder / FILE) as draft, draft.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # PyTorch's own, raised on top of that of a full disk
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def kept(folder: Path) -> bool:
    """Whether a folder holds a run that can go on."""
    return (folder / FILE).is_file()


def require(folder: Path) -> Path:
    """Return the file that a run can go on from.

    Raises:
        UserError: there is none.

    """
    path = folder / FILE
    if not kept(folder):
        raise UserError(f"{folder} holds no run to resume; leave out --resume to start one")
    return path


def check_same(folder: Path, description: Mapping[str, Any]) -> str:
    """Check that a run goes on as it was begun: with its recipe, whatever its length, and its pictures; return its id.

    Raises:
        UserError: something differs; the message names it.

    """
    try:
        begun = json.loads((folder / DESCRIPTION).read_text())
    except (OSError, ValueError):
        return ""  # nothing tells how it was begun
    if isinstance(begun["sources"], dict):
        reason = "was begun by an earlier version, which drew other samples"
        raise UserError(f"{folder}: the run {reason}; end it with that version, or --overwrite to start anew")
    now = json.loads(json.dumps(description))
    one, other = begun["recipe"], now["recipe"]
    differing = [key for key in one.keys() & other.keys() - LENGTH if not _agree(one[key], other[key])]
    if begun["sources"] != now["sources"]:
        differing.append("pictures")
    if begun.get("teachers") != now.get("teachers"):
        differing.append("teachers")
    if differing:
        advice = "give the arguments that it was begun with, or --overwrite to start anew"
        raise UserError(f"{folder}: --resume would go on with other {' and '.join(sorted(differing))}; {advice}")
    return str(begun.get("run", ""))


def _agree(one: object, other: object) -> bool:
    """Compare values of a recipe, and tables of them by the keys of both: another version may know more or fewer."""
    if isinstance(one, dict) and isinstance(other, dict):
        return all(one[key] == other[key] for key in one.keys() & other.keys())
    return one == other


def restore(folder: Path, **parts: nn.Module | torch.optim.Optimizer) -> Progress:
    """Load ``state.pt`` into the given parts and return how far the run was.

    Raises:
        UserError: there is no such file.

    """
    path = require(folder)
    content = torch.load(path, map_location="cpu", weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(content[name])
    return Progress(**content["progress"])
