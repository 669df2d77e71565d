"""What an evaluation leaves behind: a table, JSON, CSV, a contact sheet, and a reliability diagram."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from model import files
from model.errors import UserError
from model.evaluation import operating, sets
from model.evaluation.bootstrap import Estimate
from model.evaluation.calibration import Reliability
from model.evaluation.metrics.overlap import Array, Mask
from model.evaluation.protocols import THRESHOLD, Judgement
from model.pictures import masks
from model.transforms import Pixels

CELL = (320, 256)  # of the contact sheet: width and height, pixels
COLUMNS = 4  # best, median and worst cases, so many of each
TRUTH, FOUND = (0, 255, 0), (255, 64, 255)  # RGB of the outlines


def table(groups: Mapping[str, Mapping[str, Estimate]]) -> str:
    """Lay metrics out as a Markdown table, a column for each group of pictures."""
    metrics = next(iter(groups.values()))
    lines = ["| metric | " + " | ".join(groups) + " |", "|---" * (len(groups) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(str(group[name]) for group in groups.values()) + " |" for name in metrics]
    return "\n".join(lines)


def text(content: Mapping[str, Any]) -> str:
    """Lay a whole report out for a terminal."""
    parts = [sets.table(content["sets"]), "", table(content["metrics"])]
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


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write the whole report; an estimate becomes value, low and high."""
    files.write(path, json.dumps(_plain(content), indent=2) + "\n")


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


def cases(judgements: Sequence[Judgement]) -> list[int]:
    """Return the indices of the best, the median and the worst pictures by Dice, a row of each."""
    order = sorted(range(len(judgements)), key=lambda index: -judgements[index].metrics["dice"])
    middle = max(0, len(order) // 2 - COLUMNS // 2)
    return order[:COLUMNS] + order[middle : middle + COLUMNS] + order[-COLUMNS:]


def tile(image: Pixels, probability: Array, truth: Mask, dice: float) -> Pixels:
    """Draw truth (green) and mask (pink) as outlines on RGB (H, W, 3), with the Dice; one cell of the sheet."""
    cell = np.ascontiguousarray(cv2.resize(image, CELL, interpolation=cv2.INTER_AREA), np.uint8)
    for mask, colour in ((truth, TRUTH), (probability > THRESHOLD, FOUND)):
        small = cv2.resize(mask.astype(np.uint8), CELL, interpolation=cv2.INTER_NEAREST)
        outlines, _ = cv2.findContours(small, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(cell, outlines, -1, colour, 2)
    cv2.putText(cell, f"{dice:.3f}", (8, CELL[1] - 10), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 2, cv2.LINE_AA)
    return cell


def contact_sheet(tiles: Sequence[Pixels]) -> Pixels:
    """Lay tiles out in rows of best, median and worst cases."""
    rows = [tiles[start : start + COLUMNS] for start in range(0, len(tiles), COLUMNS)]
    blank = np.zeros((CELL[1], CELL[0], 3), np.uint8)
    return np.concatenate([np.concatenate([*row, *[blank] * (COLUMNS - len(row))], axis=1) for row in rows])


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


def _plain(content: Any) -> Any:
    if isinstance(content, Estimate):
        return content._asdict()
    return {key: _plain(value) for key, value in content.items()} if isinstance(content, Mapping) else content
