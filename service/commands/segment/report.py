"""What ``pranet segment`` says about each picture, as JSON lines or CSV, and about all of them."""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self, TextIO

from model import files, targets
from model.errors import TargetError
from model.targets import Targets
from service.commands.segment.inputs import DASH

JSONL, CSV = "--jsonl", "--csv"
BYTE_ORDER_MARK = "\ufeff"  # Excel begins UTF-8 with one
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


COLUMNS = tuple(field.name for field in fields(Row))
Segments = Callable[[str, int | None], bool]


class Report:
    """Counts the pictures, and writes a row about each as soon as it is done; use it as ``with``.

    A file grows row by row, so a killed run leaves what it did. ``--skip-existing`` goes on with it: rows of what is
    segmented again give way to new ones. With ``--overwrite``, what was there stays until the end of the run.

    Args:
        jsonl: a file for JSON lines, or ``-``; None: none.
        csv: the same for comma-separated values.
        targets: what may be written.
        segments: says whether this run segments a picture or frame, by its source and number as in a row.

    Raises:
        TargetError: a file is an input, exists, or cannot be written; on entry also: it holds something else than rows.

    """

    def __init__(self, jsonl: Path | None, csv: Path | None, targets: Targets, segments: Segments) -> None:
        self._segments = segments
        self._places = [(flag, path) for flag, path in ((JSONL, jsonl), (CSV, csv)) if path]
        self._new = {flag: path == DASH or targets.wants(flag, path) for flag, path in self._places}
        self._lines: TextIO | None = None
        self._table: Any = None
        self.pictures = self.with_polyp = self.failed = self.passed = 0

    def __enter__(self) -> Self:
        staying = {path: self._staying(flag, path) for flag, path in self._places}  # before any file is changed
        with ExitStack() as stack:
            for flag, path in self._places:
                file = self._opened(stack, flag, path, staying[path])
                if flag == JSONL:
                    self._lines = file
                    continue
                self._file = file
                self._table = csv.writer(_UnixLines(file), lineterminator="\r\n")
                if path == DASH or not path.exists() or self._new[flag] or not path.stat().st_size:
                    self._table.writerow(COLUMNS)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._open.__exit__(*exc_info)

    def _staying(self, flag: str, path: Path) -> bytes | None:
        with targets.writing(flag, path):
            if path != DASH and path.is_file() and not self._new[flag]:  # a device or a pipe keeps no rows
                return _staying(flag, path, self._segments)
        return None

    def _opened(self, stack: ExitStack, flag: str, path: Path, staying: bytes | None) -> TextIO:
        if path == DASH:
            return _standard_output()
        stack.enter_context(targets.writing(flag, path))
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and self._new[flag]:  # --overwrite
            path = stack.enter_context(files.replacing(path))
        elif staying is not None:
            with files.replacing(path) as draft:
                draft.write_bytes(staying)
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


class _UnixLines:
    """Ends rows with a line feed alone. ``csv`` quotes a carriage return only where it ends rows with one itself."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, row: str) -> None:
        self._file.write(row.removesuffix("\r\n") + "\n")


def _staying(flag: str, path: Path, segments: Segments) -> bytes | None:
    """Return a file without the rows of what is segmented again, and without what a kill left; None if all stays.

    Raises:
        TargetError: the file is not one of this report, or a line is no row.

    """
    text = path.read_bytes().decode(errors=ANY_NAME)
    lines = io.StringIO(text, newline="\n").readlines()
    first = lines[0].removeprefix(BYTE_ORDER_MARK).rstrip("\r\n") if lines else ""
    begin = '{"source": ' if flag == JSONL else ",".join(COLUMNS)
    if "\n" not in text and first != begin and begin.startswith(first):
        kept = ""
    elif first.startswith(begin) if flag == JSONL else first == begin:
        kept = "".join(_kept(flag, path, lines, segments))
        kept += "\n" if kept and not kept.endswith("\n") else ""  # an editor left it out
    else:
        raise TargetError(f"{flag} {path} is no report of pranet segment; give another path")
    return None if kept == text else kept.encode(errors=ANY_NAME)


def _kept(flag: str, path: Path, lines: list[str], segments: Segments) -> list[str]:
    """Return the lines that stay.

    Raises:
        TargetError: a line is no row.

    """
    while not lines[-1].strip():
        lines.pop()  # an editor added it
    end = 0 if flag == JSONL else 1  # a header
    kept = [*lines[:end]]
    try:
        for source, number, next_end in _rows(flag, lines):
            if not segments(source, number):
                kept += lines[end:next_end]
            end = next_end
    except (ValueError, LookupError, TypeError, csv.Error) as error:
        if not (_is_half_a_row if flag == CSV else _is_half_an_object)(lines[end:]):
            raise TargetError(
                f"{flag} {path} has no row in line {end + 1}; delete that line, or give another path"
            ) from error
    return kept


def _is_half_a_row(lines: Sequence[str]) -> bool:
    """Tell whether these lines, the last ones of a CSV file, are the begin of one row, which a kill cut off.

    If a line has the commas of a row, it is more likely that a quote before it is wrong.
    """
    table = csv.reader([*lines, ""])  # a row that goes on in the last one lacks a quote
    try:
        columns = len(next(table))
    except csv.Error:
        return False
    unended = not lines[-1].endswith("\n")
    half = table.line_num > len(lines) or (table.line_num == len(lines) and unended and columns < len(COLUMNS))
    alone = unended and len(lines) == 1
    return half and (alone or all(line.count(",") < len(COLUMNS) - 1 for line in lines))


def _is_half_an_object(lines: Sequence[str]) -> bool:
    """Tell whether these lines, the last ones of a file of JSON lines, are the begin of one, which a kill cut off."""
    try:
        json.loads(lines[0])
    except ValueError:
        return len(lines) == 1 and not lines[0].endswith("\n")
    return False


def _rows(flag: str, lines: Sequence[str]) -> Iterator[tuple[str, int | None, int]]:
    """Yield source and frame of each row, and the number of lines up to its end."""
    if flag == JSONL:
        for end, line in enumerate(lines, 1):
            row = json.loads(line.removeprefix(BYTE_ORDER_MARK))
            source, frame = row["source"], row["frame"]
            if not isinstance(source, str) or not (frame is None or type(frame) is int):
                raise TypeError("a value is of a wrong type")
            yield source, frame, end
        return
    table = csv.reader(lines, strict=True)
    next(table, None)
    for source, number, *rest in table:
        if len(rest) != len(COLUMNS) - 2:
            raise ValueError("too many or too few columns")
        yield source, int(number) if number else None, table.line_num
