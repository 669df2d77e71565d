"""The report of ``pranet segment``: a row about each picture, as JSON lines or CSV, and the counts of all of them."""

import csv
import io
import json
import os
import sys
from contextlib import ExitStack, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self, TextIO

from model import files, targets
from model.errors import TargetError
from model.targets import Targets
from service.commands.segment.inputs import DASH
from service.commands.segment.rows import CSV, HEADS, JSONL, Row, Which, settled

ANY_NAME = "surrogateescape"  # the bytes of names that are not UTF-8 are kept


class Earlier(NamedTuple):
    """A file of an earlier run that new rows follow."""

    text: str
    kept: str  # of it, see ``settled``


class Report:
    """Counts the pictures, and writes a row about each as soon as it is done; use it as ``with``.

    A file grows row by row, so a killed run leaves what it did. ``--skip-existing`` goes on with it: rows of what is
    segmented again give way to new ones. With ``--overwrite``, new rows follow the old ones. At the end only the new
    ones stay; if the run ends early, so do the old ones of what it has not segmented. A file of something else is
    replaced at the end only.

    Args:
        jsonl: a file for JSON lines, or ``-``; None: none.
        csv: the same for comma-separated values.
        targets: what may be written.
        segments: says whether this run segments a picture or frame.
        at_once: whether what the rows tell of is there at the end only; then so are rows that replace others.

    Raises:
        TargetError: a file is an input, exists, or cannot be written, or another command writes it; on entry also: it
            holds something else than rows.

    """

    def __init__(
        self, jsonl: Path | None, csv: Path | None, targets: Targets, segments: Which, *, at_once: bool = False
    ) -> None:
        self._segments = segments
        self._at_once = at_once
        self._places = [(flag, path) for flag, path in ((JSONL, jsonl), (CSV, csv)) if path]
        self._new = {flag: path == DASH or targets.wants(flag, path) for flag, path in self._places}
        self._lines: TextIO | None = None
        self._table: Any = None
        self.pictures = self.with_polyp = self.failed = self.passed = 0

    def __enter__(self) -> Self:
        earlier = {path: self._earlier(flag, path) for flag, path in self._places}  # before any file is changed
        with ExitStack() as stack:
            for flag, path in self._places:
                begin = earlier[path]
                file = _standard_output() if path == DASH else self._opened(stack, flag, path, begin)
                if not (begin and begin.kept):
                    file.write(HEADS[flag])
                if flag == JSONL:
                    self._lines = file
                else:
                    self._file = file
                    self._table = csv.writer(_UnixLines(file), lineterminator="\r\n")
            self._open = stack.pop_all()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._open.__exit__(*exc_info)

    def _earlier(self, flag: str, path: Path) -> Earlier | None:
        with targets.writing(flag, path):
            if path == DASH or not path.is_file() or (self._new[flag] and self._is_left(path)):
                return None  # a device or a pipe keeps no rows
            with _open(path, "r+") as file:
                files.lock(file.fileno(), path)
                text = file.read()
        if not self._new[flag]:
            return Earlier(text, settled(flag, path, text, self._segments))
        with suppress(TargetError):  # it is of something else
            return Earlier(text, settled(flag, path, text))
        return None

    def _is_left(self, path: Path) -> bool:
        """Return whether a file that is overwritten stays as it is until the end."""
        return self._at_once or not os.access(path, os.R_OK | os.W_OK)

    def _opened(self, stack: ExitStack, flag: str, path: Path, earlier: Earlier | None) -> TextIO:
        stack.enter_context(targets.writing(flag, path))
        path.parent.mkdir(parents=True, exist_ok=True)
        overwrites = self._new[flag] and path.is_file()
        if overwrites and not earlier:
            return stack.enter_context(_open(stack.enter_context(files.replacing(path)), "a"))
        if earlier and earlier.kept != earlier.text:
            _replace(path, earlier.kept)
        file = stack.enter_context(_open(path, "a+" if overwrites else "a"))
        if path.is_file():
            files.lock(file.fileno(), path)
        if overwrites:
            stack.push(partial(_settle, flag, path, file, file.tell()))
        return file

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


def _open(path: Path, mode: str) -> TextIO:
    file = path.open(mode, encoding="utf-8", errors=ANY_NAME, newline="", buffering=1)
    assert isinstance(file, io.TextIOWrapper)
    return file


def _replace(path: Path, text: str) -> None:
    files.write(path, text.encode(errors=ANY_NAME))


def _settle(flag: str, path: Path, file: TextIO, begin: int, kind: type[BaseException] | None, *_: object) -> None:
    """At the end of a run with ``--overwrite``, take the old rows out that no longer count: of an early end, not all.

    Where the disk has no room for that, both stay, and the later one of two rows counts.
    """
    if kind is None:
        file.seek(begin)
        _replace(path, HEADS[flag] + file.read().removeprefix(HEADS[flag]))
        return
    with suppress(OSError, TargetError):  # what ended the run is told
        file.seek(0)
        _replace(path, settled(flag, path, file.read()))


def _standard_output() -> TextIO:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may not know the characters of a name
    return sys.stdout


class _UnixLines:
    """Ends rows with a line feed alone. ``csv`` quotes a carriage return only where it ends rows with one itself."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, row: str) -> None:
        self._file.write(row.removesuffix("\r\n") + "\n")
