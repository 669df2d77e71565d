"""What ``pranet segment`` is given other than by path: lists of files, and standard input."""

import os
import sys
from pathlib import Path

from model.errors import UserError

DASH = Path("-")  # standard input or output
OPEN_FILES = Path("/proc/self/fd")
CHUNK = 2**20


class InputError(UserError):
    """Standard input is too large, or a list cannot be read."""


def listed_in(file: Path) -> list[Path]:
    """Return the paths in a list, one a line, or separated by NUL as ``find -print0`` does; ``-`` is standard input.

    Raises:
        InputError: it is not text, or holds no path.
        OSError: it cannot be read.

    """
    data = sys.stdin.buffer.read() if file == DASH else file.read_bytes()
    names = data.split(b"\0") if b"\0" in data else data.splitlines()
    paths = [Path(os.fsdecode(name)) for name in names if name.strip()]
    if not paths:
        raise InputError(f"--from {file} lists no file; give one path a line")
    return paths


def standard_input(max_bytes: int) -> Path:
    """Copy standard input into memory, never onto a disk, and return a path under which it can be read.

    Raises:
        InputError: it is empty, or has more than ``max_bytes``.

    """
    descriptor = os.memfd_create("stdin")
    with os.fdopen(os.dup(descriptor), "wb") as copy:
        left = max_bytes + 1
        while left and (chunk := sys.stdin.buffer.read(min(CHUNK, left))):
            copy.write(chunk)
            left -= len(chunk)
    if not left:
        raise InputError(f"standard input has more than {max_bytes} bytes; allow more with --max-archive-bytes")
    if left > max_bytes:
        raise InputError("standard input is empty; give - a picture, a DICOM object or, with --out X.mp4, a video")
    return OPEN_FILES / str(descriptor)


def shown(path: Path) -> str:
    """Return how a file is called in rows and messages: ``-`` for standard input."""
    return str(DASH if path.parent == OPEN_FILES else path)


def place(source: str) -> str:
    """Return where a file is, however the path of its folder is written; a link in it is a picture of its own."""
    folder, name = os.path.split(source)
    return os.path.join(os.path.realpath(folder), name)


def name_in_tree(path: Path) -> Path:
    """Return the name of a listed file's output, which keeps its folders, so that files of one name do not collide."""
    return Path(*[part for part in path.parts if part not in (path.anchor, "..")])
