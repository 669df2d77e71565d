"""Rows of ``--csv`` and ``--jsonl``: what they hold, and how a file of them is read again."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from model.errors import TargetError
from service.commands.segment.inputs import place

JSONL, CSV = "--jsonl", "--csv"
BYTE_ORDER_MARK = "\ufeff"  # Excel begins UTF-8 with one


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
HEADS = {JSONL: "", CSV: ",".join(COLUMNS) + "\n"}
Which = Callable[[str, int | None], bool]  # by source and number of a row, picks pictures and frames


def settled(flag: str, path: Path, text: str, drops: Which = lambda source, number: False) -> str:
    """Return a report without the rows of what ``drops`` names, and without what a kill left.

    That is a part of the last row, and rows of what a run with ``--overwrite`` segmented again: the last row counts.

    Raises:
        TargetError: the text is not of this report, or a line is no row.

    """
    lines = io.StringIO(text, newline="\n").readlines()
    first = lines[0].removeprefix(BYTE_ORDER_MARK).rstrip("\r\n") if lines else ""
    begin = HEADS[flag].rstrip() or '{"source": '
    if "\n" not in text and first != begin and begin.startswith(first):
        return ""
    if not (first.startswith(begin) if flag == JSONL else first == begin):
        raise TargetError(f"{flag} {path} is no report of pranet segment; give another path")
    kept = "".join(_kept(flag, path, lines, drops))
    return kept + "\n" if kept and not kept.endswith("\n") else kept  # an editor left it out


def _kept(flag: str, path: Path, lines: list[str], drops: Which) -> list[str]:
    """Return the header and the rows that stay.

    Raises:
        TargetError: a line is no row.

    """
    while not lines[-1].strip():
        lines.pop()  # an editor added it
    begin = end = 0 if flag == JSONL else 1  # a header
    kept: dict[tuple[str, int | None], str] = {}
    try:
        for source, number, next_end in _rows(flag, lines):
            key = place(source), number
            kept.pop(key, None)  # the later row takes the place behind all others, too
            if not drops(source, number):
                kept[key] = "".join(lines[end:next_end])
            end = next_end
    except (ValueError, LookupError, TypeError, csv.Error) as error:
        if not (_is_half_a_row if flag == CSV else _is_half_an_object)(lines[end:]):
            raise TargetError(
                f"{flag} {path} has no row in line {end + 1}; delete that line, or give another path"
            ) from error
    return [*lines[:begin], *kept.values()]


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
