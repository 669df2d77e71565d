"""The log of a run: one JSON object a line, and the picture of its curves."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model import files

SMOOTHING = 50  # steps over which the plotted loss is averaged


class Journal:
    """Appends entries to ``log.jsonl``; each has a step, and a loss or a validation Dice."""

    def __init__(self, path: Path, step: int = 0) -> None:
        """Open the log of a run that is at ``step``; what a broken run wrote after that is dropped."""
        self.path = path
        kept = [entry for entry in read(path) if entry["step"] <= step] if step else []
        files.write(path, "".join(json.dumps(entry) + "\n" for entry in kept))

    def write(self, **entry: float) -> None:
        """Append an entry."""
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """Read the entries of a log, or none if there is no file; a half-written last line is ignored."""
    entries = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return entries


def plot(logs: Sequence[Path], picture: Path) -> None:
    """Draw loss, learning rate and validation Dice of one or more runs over their steps as a PNG."""
    from matplotlib.figure import Figure  # only plotting needs it

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    loss_axes, rate_axes, dice_axes = figure.subplots(1, 3)
    for log in logs:
        entries = read(log)
        steps = [entry for entry in entries if "loss" in entry]
        scores = [entry for entry in entries if "validation_dice" in entry]
        label = log.parent.name
        loss_axes.plot([e["step"] for e in steps], _smooth([e["loss"] for e in steps]), label=label)
        rate_axes.plot([e["step"] for e in steps], [e["lr"] for e in steps], label=label)
        dice_axes.plot([e["step"] for e in scores], [e["validation_dice"] for e in scores], "o-", label=label)
    for axes, title in ((loss_axes, "training loss"), (rate_axes, "learning rate"), (dice_axes, "validation Dice")):
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
    dice_axes.legend(fontsize="small")
    with files.replacing(picture) as draft:
        figure.savefig(draft, dpi=110)


def _smooth(values: Sequence[float]) -> list[float]:
    windows = (values[max(0, end - SMOOTHING) : end] for end in range(1, len(values) + 1))
    return [sum(window) / len(window) for window in windows]
