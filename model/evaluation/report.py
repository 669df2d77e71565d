"""What an evaluation leaves behind for programs and papers: a table, JSON, CSV, and a reliability diagram."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model import files
from model.errors import UserError
from model.evaluation import operating, sets
from model.evaluation.bootstrap import Estimate
from model.evaluation.calibration import Reliability
from model.evaluation.protocols import Judgement
from model.pictures import masks


def table(groups: Mapping[str, Mapping[str, Estimate]]) -> str:
    """Lay metrics out as a Markdown table, a column for each group of pictures."""
    metrics = next(iter(groups.values()))
    lines = ["| metric | " + " | ".join(groups) + " |", "|---" * (len(groups) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(str(group[name]) for group in groups.values()) + " |" for name in metrics]
    return "\n".join(lines)


def text(content: Mapping[str, Any]) -> str:
    """Lay a whole report out for a terminal."""
    parts = [sets.table(content["sets"]), *sets.cautions(content["sets"]), "", table(content["metrics"])]
    if "gain" in content:
        parts += ["", "gain over the baseline, paired:", table(content["gain"])]
    for key, values in content.items():
        if key in ("metrics", "gain", "sets", "operating_points", "masks"):
            continue
        named = [f"{name} {value}" for name, value in values.items()] if isinstance(values, Mapping) else [str(values)]
        parts.append(f"{key}: {', '.join(named)}")
    if content.get("masks"):
        parts.append(masks.told(content["masks"]))
    if "operating_points" in content:
        parts += ["", "what each threshold finds:", operating.table(content["operating_points"])]
    return "\n".join(parts)


def write_csv(path: Path, judgements: Sequence[Judgement]) -> None:
    """Write the metrics of each picture, one row a picture."""
    with files.replacing(path) as draft, draft.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["name", *judgements[0].metrics])
        rows.writerows([j.name, *(f"{value:.6f}" for value in j.metrics.values())] for j in judgements)


def read_csv(path: Path) -> dict[str, dict[str, float]]:
    """Read the metrics of each picture that :func:`write_csv` wrote.

    Raises:
        UserError: it is not to be read, or not such a file.

    """
    try:
        with path.open(newline="") as file:
            return {row.pop("name"): {key: float(value) for key, value in row.items()} for row in csv.DictReader(file)}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        reason = f"{path} is not to be read as pictures.csv of an earlier evaluation ({type(error).__name__})"
        raise UserError(f"{reason}; give one that pranet evaluate --out has written") from error


def reliability_diagram(path: Path, curves: Mapping[str, Reliability]) -> None:
    """Draw observed frequency against predicted probability as a PNG."""
    from matplotlib.figure import Figure  # only plotting needs it

    figure = Figure(figsize=(4, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], "k:", linewidth=1)
    for name, curve in curves.items():
        seen = curve.weight > 0
        points = (curve.predicted[seen] / curve.weight[seen], curve.observed[seen] / curve.weight[seen])
        axes.plot(*points, "o-", label=f"{name}, ECE {curve.error:.3f}")
    axes.set(xlabel="predicted probability", ylabel="observed frequency", xlim=(0, 1), ylim=(0, 1))
    axes.legend(fontsize="small")
    with files.replacing(path) as draft:
        figure.savefig(draft, dpi=110)
