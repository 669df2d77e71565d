"""The folder through which objects pass on their way to the PACS, so that neither a crash nor an absent PACS loses one.

    receiving/N/    objects of an association that is open
    received/N/     of one that has ended: they wait to be segmented
    received/N.done/    those whose Segmentations, in ``made/``, are complete: it is about to go
    segmented/N/    Segmentations that the PACS has not stored yet
    failed/N/       objects that were not segmented and Segmentations that the PACS refused, with ``reasons.txt``

N is a number. A folder moves on by a rename, so it is in one place at any moment.
"""

import contextlib
import errno
import fcntl
import itertools
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from model import files
from model.errors import UserError
from model.targets import FULL

PRIVATE, PRIVATE_FILE = 0o700, 0o600  # the objects name patients
DIGITS = 8  # of a folder's number, so that names sort as numbers do
REASONS = "reasons.txt"
DONE = ".done"


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
            path.mkdir(PRIVATE, parents=True, exist_ok=True)
            self._lock = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, PRIVATE_FILE)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(self.parts, ignore_errors=True)
            for folder in (*self._places(), self.parts):
                folder.mkdir(PRIVATE, exist_ok=True)
        except BlockingIOError as error:
            raise SpoolError(f"another process uses the spool {path}; give each its own --spool") from error
        except OSError as error:
            raise SpoolError(f"the spool {path} cannot be used ({error.strerror}); give a folder to write") from error
        names = [each.name.removesuffix(DONE) for place in self._places() for each in place.iterdir()]
        numbers = [int(name) for name in names if name.isdigit()]
        self._numbers = itertools.count(max(numbers, default=0) + 1)
        for folder in filter(is_done, self.received()):
            self.finish(folder)
        for folder in self._numbered(self._receiving):
            self.end(folder)
        for folder in self.received():
            self._leave(folder)  # if all that it held has failed
        for folder in self.received():  # an operator may have put it back, while others of its number wait elsewhere
            if any((place / folder.name).exists() for place in (self._segmented, self._failed)):
                folder.rename(self._received / self._next())

    def close(self) -> None:
        """Let another process use the folder."""
        os.close(self._lock)

    def begin(self) -> Path:
        """Return a new folder for the objects of an association."""
        folder = self._receiving / self._next()
        folder.mkdir(PRIVATE)
        sync(self._receiving)
        return folder

    def end(self, folder: Path) -> None:
        """Let the objects of an association that has ended be segmented."""
        try:
            folder.rmdir()  # nothing came
        except OSError:
            folder.rename(self._received / folder.name)

    def received(self) -> list[Path]:
        """Return the folders of objects that wait, the oldest first: to be segmented or, if ``is_done``, finished."""
        return self._numbered(self._received)

    def segmented(self, folder: Path, segmentations: Mapping[str, bytes]) -> None:
        """Put Segmentations, by the names of their files, in the place of a folder's objects."""
        made = folder / "made"
        shutil.rmtree(made, ignore_errors=True)  # from before a crash
        made.mkdir(PRIVATE)
        try:
            for name, content in segmentations.items():
                files.write(made / name, content, mode=PRIVATE_FILE)
            sync(made)
        except OSError:  # a full disk may have room for those of another folder
            shutil.rmtree(made, ignore_errors=True)
            raise
        done = folder.with_name(folder.name + DONE)
        folder.rename(done)
        sync(done.parent)
        self.finish(done)

    def finish(self, done: Path) -> None:
        """Move complete Segmentations on, and delete their objects; after an error or a crash, this is done again."""
        made = done / "made"
        if made.exists() and any(made.iterdir()):
            place = self._segmented / done.name.removesuffix(DONE)
            # An operator may have put the objects back while others of their number wait here.
            made.rename(self._segmented / self._next() if place.exists() else place)
        sync(self._segmented)
        shutil.rmtree(done)

    def to_store(self) -> list[Path]:
        """Return the Segmentations that the PACS has not stored yet, the oldest first; never objects beside them."""
        files = [file for folder in self._numbered(self._segmented) for file in sorted(folder.glob("*.dcm"))]
        return [file for file in files if file.stem.isdigit()]

    def stored(self, file: Path) -> None:
        """Delete a Segmentation that the PACS has stored."""
        file.unlink()
        self._leave(file.parent)

    def refused(self, file: Path, reason: str) -> Path:
        """Keep a Segmentation that the PACS refused for the operator; return its folder."""
        kept = self.fail([file], reason)
        self._leave(file.parent)
        return kept

    def fail(self, failed: Sequence[Path], reason: str) -> Path:
        """Keep files for the operator, beside a reason; return their folder."""
        folder = self._failed / failed[0].parent.name
        folder.mkdir(PRIVATE, exist_ok=True)
        with (folder / REASONS).open("a") as reasons:
            reasons.writelines(f"{file.name}: {reason}\n" for file in failed)
        for file in failed:
            file.rename(folder / file.name)
        return folder

    def counts(self) -> dict[str, Callable[[], int]]:
        """Return functions that count the objects in each place where they may wait."""
        return {place.name: partial(_objects, place) for place in self._places()}

    def _next(self) -> str:
        return f"{next(self._numbers):0{DIGITS}}"

    def _leave(self, folder: Path) -> None:
        with contextlib.suppress(OSError):  # it holds other files
            folder.rmdir()

    def _places(self) -> tuple[Path, ...]:
        return self._receiving, self._received, self._segmented, self._failed

    def _numbered(self, place: Path) -> list[Path]:
        return sorted(each for each in place.iterdir() if each.name.removesuffix(DONE).isdigit())


def is_done(folder: Path) -> bool:
    """Tell whether the Segmentations of a folder of objects are complete."""
    return folder.name.endswith(DONE)


def why(error: OSError, place: Path) -> str:
    """Say that the spool cannot be used: why, where if the error does not tell, and what to do."""
    advice = {errno.ENOENT: "restart the command, which makes its folders again"} | dict.fromkeys(
        FULL, "free some space"
    )
    told = f"the spool cannot be used: {error.strerror}: {error.filename or place}"
    return f"{told}; {advice.get(error.errno or 0, 'check the disk and the permissions')}"


def _objects(place: Path) -> int:
    with os.scandir(place) as folders:
        return sum(_count(folder.path) for folder in folders if folder.is_dir())


def _count(folder: str) -> int:
    """Return how many objects a folder has: none if it moves on at this moment, or may not be read."""
    with contextlib.suppress(FileNotFoundError, PermissionError), os.scandir(folder) as entries:
        return sum(entry.name.endswith(".dcm") for entry in entries)
    return 0


def objects(folder: Path) -> list[Path]:
    """Return the files of a folder, also those whose names an operator chose."""
    return sorted(file for file in folder.iterdir() if file.is_file() and file.name != REASONS)


def sync(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
