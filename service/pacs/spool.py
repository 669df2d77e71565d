"""The folder through which objects pass on their way to the PACS, so that neither a crash nor an absent PACS loses one.

    receiving/N/    objects of an association that is open
    received/N/     of one that has ended: they wait to be segmented
    segmented/N/    Segmentations that the PACS has not stored yet
    failed/N/       objects that were not segmented and Segmentations that the PACS refused, with ``reasons.txt``

N is a number. A folder moves on by a rename, so it is in one place at any moment.
"""

import contextlib
import fcntl
import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from model.errors import UserError

PRIVATE = 0o700  # the objects name patients
DIGITS = 8  # of a folder's number, so that names sort as numbers do
REASONS = "reasons.txt"


class SpoolError(UserError):
    """The folder cannot be used, or another process uses it."""


class Spool:
    """A spool in a folder, which is made where it is missing, for one process.

    What an earlier process left is taken up: an association that a crash cut off counts as ended.

    Raises:
        SpoolError: the folder cannot be used, or another process uses it.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._receiving, self._received = path / "receiving", path / "received"
        self._segmented, self._failed = path / "segmented", path / "failed"
        self.parts = path / "parts"  # of objects that are arriving, on the same file system
        try:
            shutil.rmtree(self.parts, ignore_errors=True)
            for folder in (self._receiving, self._received, self._segmented, self._failed, self.parts):
                folder.mkdir(PRIVATE, parents=True, exist_ok=True)
            self._lock = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SpoolError(f"another process uses the spool {path}; give each its own --spool") from error
        except OSError as error:
            raise SpoolError(f"the spool {path} cannot be used ({error.strerror}); give a folder to write") from error
        numbers = [int(each.name) for place in self._places() for each in place.iterdir() if each.name.isdigit()]
        self._numbers = itertools.count(max(numbers, default=0) + 1)
        for folder in self._numbered(self._receiving):
            self.end(folder)
        for folder in self.received():
            if (self._segmented / folder.name).exists():  # a crash came between the two steps of ``segmented``
                shutil.rmtree(folder)

    def close(self) -> None:
        """Let another process use the folder."""
        os.close(self._lock)

    def begin(self) -> Path:
        """Return a new folder for the objects of an association."""
        folder = self._receiving / f"{next(self._numbers):0{DIGITS}}"
        folder.mkdir(PRIVATE)
        return folder

    def end(self, folder: Path) -> None:
        """Let the objects of an association that has ended be segmented."""
        try:
            folder.rmdir()  # nothing came
        except OSError:
            folder.rename(self._received / folder.name)

    def received(self) -> list[Path]:
        """Return the folders of objects that wait to be segmented, the oldest first."""
        return self._numbered(self._received)

    def segmented(self, folder: Path, segmentations: Mapping[str, bytes]) -> None:
        """Put Segmentations, by the names of their files, in the place of a folder's objects."""
        made = folder / "made"
        shutil.rmtree(made, ignore_errors=True)  # from before a crash
        made.mkdir(PRIVATE)
        for name, content in segmentations.items():
            write_durably(made / name, content)
        if segmentations:
            made.rename(self._segmented / folder.name)
        shutil.rmtree(folder)

    def to_store(self) -> list[Path]:
        """Return the Segmentations that the PACS has not stored yet, the oldest first."""
        return [file for folder in self._numbered(self._segmented) for file in sorted(folder.iterdir())]

    def stored(self, file: Path) -> None:
        """Delete a Segmentation that the PACS has stored."""
        file.unlink()
        self._leave(file.parent)

    def fail(self, files: Iterable[Path], reason: str) -> Path:
        """Keep files for the operator, beside a reason; return their folder."""
        files = list(files)
        folder = self._failed / files[0].parent.name
        folder.mkdir(PRIVATE, exist_ok=True)
        with (folder / REASONS).open("a") as reasons:
            for file in files:
                reasons.write(f"{file.name}: {reason}\n")
                file.rename(folder / file.name)
        for parent in {file.parent for file in files}:
            self._leave(parent)
        return folder

    def counts(self) -> dict[str, Callable[[], int]]:
        """Return functions that count the objects in each place where they may wait."""
        places = (self._received, self._segmented, self._failed)
        return {place.name: partial(_objects, place) for place in places}

    def clear_parts(self, seconds: float) -> None:
        """Delete what is left of objects that broke off: parts that nobody has written to for so long."""
        for part in self.parts.iterdir():
            with contextlib.suppress(FileNotFoundError):  # it has become an object
                if time.time() - part.stat().st_mtime > seconds:
                    part.unlink()

    def _leave(self, folder: Path) -> None:
        with contextlib.suppress(OSError):  # it holds other files
            folder.rmdir()

    def _places(self) -> tuple[Path, ...]:
        return self._receiving, self._received, self._segmented, self._failed

    def _numbered(self, place: Path) -> list[Path]:
        return sorted(each for each in place.iterdir() if each.name.isdigit())


def _objects(place: Path) -> int:
    return sum(1 for _ in place.glob("*/*.dcm"))


def write_durably(path: Path, content: bytes) -> None:
    """Write a file, and wait until its content is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
