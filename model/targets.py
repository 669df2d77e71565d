"""Targets of commands: never an input, and never a file that nobody allowed to replace.

A command checks its targets with ``Targets`` before any work, and writes them with ``model.files``.
"""

import argparse
import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from model.errors import TargetError
from model.files import Identity, identity

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def add_overwrite(parser: argparse.ArgumentParser, *, skip: bool = False) -> None:
    """Declare ``--overwrite`` and, for a run that writes many files, ``--skip-existing``."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--overwrite", action="store_true", help="replace files that exist; inputs are never replaced")
    if skip:
        group.add_argument(
            "--skip-existing", action="store_true", help="skip inputs whose output exists, to continue a run"
        )


class Targets:
    """What a command may write, given what it reads, and its ``--overwrite``, ``--skip-existing`` or ``--resume``."""

    def __init__(self, inputs: Iterable[Path], arguments: argparse.Namespace) -> None:
        self._overwrite: bool = arguments.overwrite or getattr(arguments, "resume", False)
        self._skip: bool = getattr(arguments, "skip_existing", False)
        self._advice = "give another path, or --overwrite to replace it"
        if hasattr(arguments, "skip_existing"):
            self._advice += ", or --skip-existing to skip it"
        if hasattr(arguments, "resume"):
            self._advice += ", or --resume to continue that run"
        self._files: dict[Identity, Path] = {}
        self._folders: dict[Identity, Path] = {}
        for path in inputs:
            self._read(path)

    @classmethod
    def of(cls, arguments: argparse.Namespace, *outputs: str, also: Iterable[Path] = ()) -> "Targets":
        """Take every path of the command line for an input, but those of the arguments ``outputs``."""
        given = (value for name, value in vars(arguments).items() if name not in outputs)
        each = (value for values in given for value in (values if isinstance(values, list) else [values]))
        return cls([*(value for value in each if isinstance(value, Path)), *also], arguments)

    @property
    def overwrites(self) -> bool:
        """Whether what is there is replaced."""
        return self._overwrite

    def wants(self, flag: str, path: Path) -> bool:
        """Return whether to write a file: not where it exists and ``--skip-existing`` was given.

        Raises:
            TargetError: it is an input, or it exists and ``--overwrite`` was not given.

        """
        found = identity(path)
        if found is None:
            return True
        if found in self._files:
            raise TargetError(f"{flag} {path} is the input {self._files[found]}; give another path")
        if path.is_dir():
            raise TargetError(f"{flag} {path} is a folder; give the path of a file")
        if self._skip:
            return False
        if path.is_file() and not self._overwrite:  # a device or a pipe loses nothing
            raise TargetError(f"{flag} {path} exists; {self._advice}")
        return True

    def folder(self, flag: str, path: Path, names: Iterable[str] = ()) -> None:
        """Check a folder, and the files of these names that will be written into it.

        Raises:
            TargetError: inputs lie in the folder, or see ``wants``.

        """
        if (found := identity(path)) in self._folders:
            raise TargetError(f"{flag} {path} is {self._folders[found]}, the folder of inputs; give another folder")
        if found is not None and not path.is_dir():
            raise TargetError(f"{flag} {path} is a file; give a folder")
        for name in names:
            self.wants(flag, path / name)

    def empty(self, flag: str, path: Path) -> None:
        """Check a folder that must hold nothing yet, because what two runs wrote must not be mixed.

        Raises:
            TargetError: it holds something, or see ``folder``.

        """
        self.folder(flag, path)
        if path.is_dir() and any(path.iterdir()):
            raise TargetError(f"{flag} {path} is not empty; give a new folder: two sessions are never mixed in one")

    def _read(self, path: Path) -> None:
        if (found := identity(path)) is None:
            return
        if not path.is_dir():
            self._files[found] = path
            return
        self._folders[found] = path
        with contextlib.suppress(PermissionError), os.scandir(path) as entries:  # whoever reads it finds out
            for entry in entries:
                if (each := identity(Path(entry.path))) is not None and entry.is_file():
                    self._files[each] = Path(entry.path)


@contextlib.contextmanager
def writing(flag: str, path: Path) -> Iterator[None]:
    """Name the flag in the error of a write in this block that fails.

    Raises:
        TargetError: the disk is full, or the path cannot be written.

    """
    try:
        yield
    except OSError as error:
        if error.errno not in (*FULL, errno.EROFS) and not _names(error, path.parent):
            raise
        advice = "free some space" if error.errno in FULL else "check its folder and permissions"
        reason = f"{flag} {path} cannot be written ({error.strerror})"
        raise TargetError(f"{reason}; {advice}, or give another path") from error


def _names(error: OSError, folder: Path) -> bool:
    named = isinstance(error.filename, str | bytes | os.PathLike)
    return named and Path(os.fsdecode(error.filename)).resolve().is_relative_to(folder.resolve())
