"""The folder that an evaluation leaves behind: a page, tables for programs, and pictures of cases."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from model import files
from model.evaluation import contact_sheet, operating, page, report, sets
from model.evaluation.bootstrap import CONFIDENCE
from model.evaluation.calibration import Reliability
from model.evaluation.maps import Maps
from model.evaluation.protocols import THRESHOLD, Judgement
from model.pictures.reading import read_image
from model.training.data.pairs import PairFile, read_truth
from model.training.validation import MARKED, MISSED
from model.transforms import Pixels

WORST = 8  # cases of each set on the page
FILES = ("report.json", "report.html", "sets.csv", "pictures.csv", "cases.png", "reliability.png")


@dataclass(frozen=True)
class Judged:
    """A picture and how it was judged."""

    file: PairFile
    judgement: Judgement


def write(
    folder: Path,
    judged: Mapping[str, Sequence[Judged]],
    answers: Maps,
    reliability: Reliability,
    content: Mapping[str, Any],
) -> None:
    """Write the ``FILES``, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [sets.plain(row) for row in content["sets"]]
    named = {"sets": rows}
    if "operating_points" in content:
        named["operating_points"] = [point.row() for point in content["operating_points"]]
    files.write_json(folder / "report.json", {**content, **named})
    every = [each for members in judged.values() for each in members]
    report.write_csv(folder / "pictures.csv", [each.judgement for each in every])
    with files.replacing(folder / "sets.csv") as draft, draft.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0].keys())
        table.writeheader()
        table.writerows(rows)
    report.reliability_diagram(folder / "reliability.png", {"pixels": reliability})
    sheet = {
        heading: [_labelled(every[index], answers) for index in indices]
        for heading, indices in contact_sheet.cases([each.judgement for each in every]).items()
    }
    with files.replacing(folder / "cases.png") as draft:
        contact_sheet.draw(sheet).save(draft)
    _page(folder / "report.html", judged, answers, content)


def _page(path: Path, judged: Mapping[str, Sequence[Judged]], answers: Maps, content: Mapping[str, Any]) -> None:
    tables = {"Sets, the worst last": sets.table(content["sets"]), "All metrics": report.table(content["metrics"])}
    if "operating_points" in content:
        tables["Operating points"] = operating.table(content["operating_points"])
    order = reversed([row.name for row in content["sets"]])
    cases = {name: [_labelled(each, answers) for each in _worst(judged[name])] for name in order}
    page.write(path, f"Evaluation of {content.get('file', 'maps')}", _about(content), tables, cases)


def _about(content: Mapping[str, Any]) -> list[str]:
    """Return what a reader of the page needs to know: what was judged, when and how, and what the words mean."""
    judged = [f"{date.today()}, protocol {content['protocol']}, threshold {THRESHOLD}"]
    if "weights" in content:
        judged.append(f"SHA-256 of the weights {content['weights']}, {content['precision']} on {content['device']}")
    return [
        "; ".join(judged) + ".",
        f"Brackets hold the {CONFIDENCE:.0%} confidence interval. Missed: share of the pictures with a polyp of which "
        f"Dice is below {MISSED}. Without: pictures without a polyp. Marked: share of these with over {MARKED:.1%} of "
        "the picture marked. False polyps a frame: regions marked in one of these, on average.",
        *sets.cautions(content["sets"]),
    ]


def _worst(judged: Sequence[Judged]) -> list[Judged]:
    return sorted(judged, key=lambda each: (each.judgement.metrics["dice"], -each.judgement.found))[:WORST]


def _caption(judgement: Judgement) -> str:
    if judgement.polyp:
        return f"{judgement.name}: Dice {judgement.metrics['dice']:.3f}"
    return f"{judgement.name}: no polyp, {judgement.found:.1%} of the picture marked"


def _labelled(each: Judged, answers: Maps) -> tuple[str, Pixels]:
    return _caption(each.judgement), _tile(each, answers)


def _tile(each: Judged, answers: Maps) -> Pixels:
    image, truth = np.asarray(read_image(each.file.image)), read_truth(each.file) > 0
    probability = answers.probability(each.file, truth.shape[1], truth.shape[0])
    return contact_sheet.tile(image, probability, truth)
