"""What ``pranet segment`` says about each picture, as JSON lines or CSV, and about all of them."""

import csv
import io
import json
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self, TextIO

from model import files, targets
from model.targets import Targets
from service.commands.segment.inputs import DASH

JSONL, CSV = "--jsonl", "--csv"
ANY_NAME = "surrogateescape"  # the bytes of names that are not UTF-8 are kept


@dataclass(frozen=True, slots=True)
class Row:
    """A row of --csv or --jsonl: what was found in one picture or frame."""

    source: str
    frame: int | None = None  # number from 0, of a video or of a DICOM object with several frames
    polyps: int | None = None  # connected regions of the mask
    area: float | None = None  # of all of them, share of the picture, 0 to 1
    presence: float | None = None  # probability that it shows a polyp; None if the weights have no such score
    milliseconds: float | None = None  # from its turn to its answer
    error: str | None = None


class Report:
    """Counts the pictures, and writes a row about each as soon as it is done; use it as ``with``.

    A file grows row by row, so a killed run leaves what it did. ``--skip-existing`` goes on with it. With
    ``--overwrite``, what was there stays until the end of the run.

    Args:
        jsonl: a file for JSON lines, or ``-``; None: none.
        csv: the same for comma-separated values.
        targets: what may be written.

    Raises:
        TargetError: a file is an input, exists, or cannot be written.

    """

    def __init__(self, jsonl: Path | None, csv: Path | None, targets: Targets) -> None:
        self._places = [(flag, path) for flag, path in ((JSONL, jsonl), (CSV, csv)) if path]
        self._new = {flag: path == DASH or targets.wants(flag, path) for flag, path in self._places}
        self._lines: TextIO | None = None
        self._table: Any = None
        self.pictures = self.with_polyp = self.failed = self.passed = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for flag, path in self._places:
                file = self._opened(stack, flag, path)
                if flag == JSONL:
                    self._lines = file
                    continue
                self._file = file
                self._table = csv.writer(file, lineterminator="\n")
                if path == DASH or not path.exists() or self._new[flag] or not path.stat().st_size:
                    self._table.writerow([field.name for field in fields(Row)])
            self._open = stack.pop_all()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._open.__exit__(*exc_info)

    def _opened(self, stack: ExitStack, flag: str, path: Path) -> TextIO:
        if path == DASH:
            return _standard_output()
        stack.enter_context(targets.writing(flag, path))
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and self._new[flag]:  # --overwrite
            path = stack.enter_context(files.replacing(path))
        elif path.exists():
            _cut_half_a_row(path)
        return stack.enter_context(path.open("a", encoding="utf-8", errors=ANY_NAME, newline="", buffering=1))

    def add(self, row: Row) -> None:
        """Count a picture, and write its row."""
        self.pictures += 1
        self.failed += row.error is not None
        self.with_polyp += bool(row.polyps)
        if self._lines is not None:
            print(json.dumps(asdict(row)), file=self._lines, flush=True)
        if self._table is not None:
            self._table.writerow(asdict(row).values())
            self._file.flush()

    def count(self, pictures: int, with_polyp: int) -> None:
        """Count the frames of a DICOM Segmentation, which have no rows."""
        self.pictures += pictures
        self.with_polyp += with_polyp

    def summary(self) -> str:
        """Return the counts as one line for the user."""
        counted = f"{self.pictures} picture{'' if self.pictures == 1 else 's'}"
        passed = f", {self.passed} skipped (output exists)" if self.passed else ""
        return f"{counted}, {self.with_polyp} with a polyp, {self.failed} failed{passed}"


def _standard_output() -> TextIO:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may not know the characters of a name
    return sys.stdout


def _cut_half_a_row(path: Path) -> None:
    """Drop the end of the last row, if a kill left it incomplete."""
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
