"""The files of commands: folders in natural order, and targets that are never an input and never half written.

A command checks its targets with ``Targets`` before any work, and writes them with ``write`` or ``replacing``.
"""

import argparse
import contextlib
import errno
import fcntl
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from model.errors import UserError

NUMBER = re.compile(r"(\d+)")
NEW, PRIVATE = 0o666, 0o600  # modes of a new file, before the umask, and of a draft of one that others may not read
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

Identity = tuple[int, int]  # device and inode: the same file under any path, link or hard link


class TargetError(UserError):
    """A target is an input or exists already, or cannot be written; the message names its flag."""


def natural(path: Path) -> tuple[list[list[str | int]], Path]:
    """Return a key that sorts paths as people count: ``frame2`` before ``frame10``."""
    parts = [NUMBER.split(part.casefold()) for part in path.parts]
    return [[int(piece) if index % 2 else piece for index, piece in enumerate(pieces)] for pieces in parts], path


def listed(
    folder: Path,
    suffixes: Collection[str],
    *,
    deep: bool = False,
    but: Path | None = None,
    also: Callable[[Path], bool] = lambda file: False,
) -> list[Path]:
    """Return the files of a folder in natural order, without hidden ones, such as drafts.

    Args:
        folder: what to list.
        suffixes: of the files to return, in lower case.
        deep: also list the folders in it.
        but: leave out what lies in this folder, such as a run's own output.
        also: says whether to return a file of another suffix, for example by its contents.

    """
    found = (folder.rglob if deep else folder.glob)("*")
    shown = [file for file in found if not _hidden(file, folder) and file.is_file()]
    shown = [file for file in shown if file.suffix.lower() in suffixes or also(file)]
    if but is not None and but.exists():
        shown = [file for file in shown if not file.resolve().is_relative_to(but.resolve())]
    return sorted(shown, key=natural)


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


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

    def wants(self, flag: str, path: Path) -> bool:
        """Return whether to write a file: not where it exists and ``--skip-existing`` was given.

        Raises:
            TargetError: it is an input, or it exists and ``--overwrite`` was not given.

        """
        found = _identity(path)
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
        if (found := _identity(path)) in self._folders:
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
        if (found := _identity(path)) is None:
            return
        if not path.is_dir():
            self._files[found] = path
            return
        self._folders[found] = path
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_file() and (each := _identity(Path(entry.path))) is not None:
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


def write(path: Path, content: bytes | str, *, mode: int = NEW, durable: bool = True) -> None:
    """Write a file whole or not at all; text in UTF-8. See ``replacing``."""
    with replacing(path, mode=mode, durable=durable) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(
    path: Path, *, mode: int = NEW, durable: bool = True, partial: tuple[type[BaseException], ...] = ()
) -> Iterator[Path]:
    """Yield the path of a draft beside ``path``, and rename it to ``path`` when the block ends without an exception.

    So a kill or a full disk at any moment leaves what was there. What is replaced keeps its owner, group, mode and
    access list; a link to it stays a link. What is no regular file, such as a device, is written directly.

    Args:
        path: the file to make or replace.
        mode: permissions of a new file, before the umask.
        durable: wait until the content is on the disk.
        partial: exceptions after which what was written until then is kept, if it is anything.

    Raises:
        TargetError: another command is writing this file.
        OSError: it cannot be written, or its owner cannot be kept.

    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        yield path
        return
    draft = path.with_name(f".{path.stem}.draft{path.suffix}")
    descriptor = _locked(draft, path, PRIVATE if path.exists() else mode)

    def commit() -> None:
        if path.exists():
            _resemble(draft, path)
        if durable:
            os.fsync(descriptor)
        os.replace(draft, path)

    try:
        yield draft
        commit()
    except partial:
        if draft.stat().st_size:
            commit()
        raise
    finally:
        draft.unlink(missing_ok=True)
        os.close(descriptor)


def _locked(draft: Path, path: Path, mode: int) -> int:
    """Create a draft and return its locked descriptor; the lock tells it from what a killed command left behind."""
    while True:
        try:
            descriptor, new = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode), True
        except FileExistsError:
            descriptor, new = os.open(draft, os.O_RDWR | os.O_NOFOLLOW), False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise TargetError(f"another command is writing {path}; try again when it has ended") from None
        if _identity(draft) == _identity(descriptor):  # else it was renamed or removed between the two calls
            if new:
                return descriptor
            draft.unlink()
        os.close(descriptor)


def _resemble(draft: Path, path: Path) -> None:
    """Give a draft the owner, group, mode and extended attributes (access lists) of the file that it replaces."""
    status, own = path.stat(), draft.stat()
    if (status.st_uid, status.st_gid) != (own.st_uid, own.st_gid):
        os.chown(draft, status.st_uid, status.st_gid)
    os.chmod(draft, status.st_mode & 0o7777)
    for name in os.listxattr(path):
        with contextlib.suppress(OSError):  # some belong to the system, such as labels of SELinux
            os.setxattr(draft, name, os.getxattr(path, name))


def _identity(path: Path | int) -> Identity | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
