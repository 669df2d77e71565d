"""Tells of a Matroska or WebM file how much of it is missing, which FFmpeg does not tell."""

from pathlib import Path
from typing import BinaryIO

HEADER, SEGMENT = 0x1A45DFA3, 0x18538067  # the only elements at the top of a file (RFC 9559, section 5.1; RFC 8794)


def missing_bytes(path: Path) -> int:
    """Return how many bytes a file lacks at its end, by the size that its header declares.

    It is 0 for a file whose size its writer did not know, such as a recording that is still going on, and for a file of
    another format.

    Raises:
        OSError: the file cannot be read.

    """
    with path.open("rb") as file:
        kind, size = _element(file)
        if kind != HEADER or size is None:
            return 0
        file.seek(size, 1)
        kind, size = _element(file)
        if kind != SEGMENT or size is None:
            return 0
        return max(0, file.tell() + size - path.stat().st_size)


def _element(file: BinaryIO) -> tuple[int, int | None]:
    """Read the id and the size of an element; the size is None if it is unknown (RFC 8794, sections 5 and 6)."""
    kind, _ = _number(file)
    number, marker = _number(file)
    size = number - marker
    return kind, None if not marker or size == marker - 1 else size


def _number(file: BinaryIO) -> tuple[int, int]:
    """Read a number of variable length; return it with its marker, and the marker: both 0 where there is none.

    As many bits as the number has bytes tell its length: zeros, and the marker, a one.
    """
    first = file.read(1)
    length = 9 - first[0].bit_length() if first else 9
    rest = file.read(length - 1) if length < 9 else b""
    return (int.from_bytes(first + rest), 1 << (7 * length)) if len(rest) == length - 1 else (0, 0)
