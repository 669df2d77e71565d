"""The log of a run: one JSON object a line, and the picture of its curves."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

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


class Panel(NamedTuple):
    """One of the drawings of ``plot``."""

    title: str
    style: str  # of Matplotlib


PANELS = {
    "loss": Panel("training loss", "-"),
    "lr": Panel("learning rate", "-"),
    "validation_dice": Panel("validation Dice", "o-"),
}


def plot(logs: Sequence[Path], picture: Path) -> None:
    """Draw loss, learning rate and, where there was one, validation Dice of runs over their steps as a PNG."""
    from matplotlib.figure import Figure  # only plotting needs it

    runs = [(log.parent.name, read(log)) for log in logs]
    shown = [key for key in PANELS if key != "validation_dice" or any(key in e for _, run in runs for e in run)]
    figure = Figure(figsize=(3 * len(shown), 3.2), layout="constrained")
    for key, axes in zip(shown, figure.subplots(1, len(shown)), strict=True):
        for name, entries in runs:
            points = [(entry["step"], entry[key]) for entry in entries if key in entry]
            steps, values = zip(*points, strict=True) if points else ((), ())
            axes.plot(steps, _smooth(values) if key == "loss" else values, PANELS[key].style, label=name)
        axes.set(title=PANELS[key].title, xlabel="step")
        axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    with files.replacing(picture) as draft:
        figure.savefig(draft, dpi=110)


def _smooth(values: Sequence[float]) -> list[float]:
    windows = (values[max(0, end - SMOOTHING) : end] for end in range(1, len(values) + 1))
    return [sum(window) / len(window) for window in windows]
