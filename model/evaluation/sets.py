"""One row for each set of pictures: what is found where there is a polyp, and what is marked where there is none."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from model.evaluation import bootstrap
from model.evaluation.bootstrap import Estimate
from model.evaluation.protocols import Judgement
from model.training.validation import MARKED

FEW = 20  # pictures, below which a bootstrap over them covers less than it says


@dataclass(frozen=True)
class Row:
    """How weights do on one set; what there are no frames for is None."""

    name: str
    polyps: int  # frames with a polyp
    dice: Estimate | None
    missed: Estimate | None  # share of them
    clean: int  # frames without one
    marked: Estimate | None  # share of them on which more than 0.5 % of the area is marked
    false_polyps: Estimate | None  # regions marked on one of them, on average

    @property
    def goodness(self) -> float:
        """Order of the rows: mean Dice or, where no frame shows a polyp, the share of frames left unmarked."""
        return self.dice.value if self.dice else 1 - self.marked.value if self.marked else 0.0


def rows(judged: Mapping[str, Sequence[Judgement]]) -> list[Row]:
    """Summarise sets of judged pictures, the worst last."""
    return sorted((_row(name, judgements) for name, judgements in judged.items()), key=lambda row: -row.goodness)


def _row(name: str, judgements: Sequence[Judgement]) -> Row:
    dice = np.array([j.metrics["dice"] for j in judgements if j.polyp])
    missed = sum(j.missed for j in judgements)
    found = np.array([j.found for j in judgements if not j.polyp])
    regions = np.array([float(j.components) for j in judgements if not j.polyp])
    return Row(
        name,
        polyps=len(dice),
        dice=bootstrap.mean(dice) if len(dice) else None,
        missed=bootstrap.rate(missed, len(dice)) if len(dice) else None,
        clean=len(found),
        marked=bootstrap.rate(int((found > MARKED).sum()), len(found)) if len(found) else None,
        false_polyps=bootstrap.mean(regions) if len(found) else None,
    )


def cautions(found: Sequence[Row]) -> list[str]:
    """Return a sentence if a set is so small that its intervals mean little, and otherwise nothing."""
    small = [row.name for row in found if row.polyps + row.clean < FEW]
    text = f"With fewer than {FEW} pictures ({', '.join(small)}), intervals over pictures are too narrow: judge more."
    return [text] if small else []


def table(found: Sequence[Row]) -> str:
    """Lay rows out as a Markdown table."""
    lines = ["| set | polyps | Dice | missed | without | marked | false polyps a frame |", "|---" * 7 + "|"]
    for row in found:
        cells = (row.name, row.polyps, row.dice, row.missed, row.clean, row.marked, row.false_polyps)
        lines.append("| " + " | ".join("-" if cell is None else str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def plain(row: Row) -> dict[str, Any]:
    """Return a row for JSON and CSV: ``dice``, ``dice_low``, ``dice_high``, and so on."""
    flat: dict[str, Any] = {}
    for key, value in asdict(row).items():
        if key in ("name", "polyps", "clean"):
            flat[key] = value
        else:
            flat |= dict(zip((key, f"{key}_low", f"{key}_high"), value or (None, None, None), strict=True))
    return flat
