"""Files: folders in natural order, and files that are written whole or not at all. ``model.targets`` checks them."""

import contextlib
import fcntl
import json
import math
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from model.errors import TargetError

NUMBER = re.compile(r"(\d+)")
NEW, PRIVATE = 0o666, 0o600  # modes of a new file, before the umask, and of a draft of one that others may not read

Identity = tuple[int, int]  # device and inode: the same file under any path, link or hard link


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

    What cannot be looked at is returned, too, so that whoever reads it finds out: a folder within that may not be
    listed, a file in one that may not be searched, and a link to nothing. Links to folders are not followed.

    Args:
        folder: what to list.
        suffixes: of the files to return, in lower case.
        deep: also list the folders in it.
        but: leave out what lies in this folder, such as a run's own output.
        also: says whether to return a file of another suffix, for example by its contents.

    Raises:
        OSError: the folder itself may not be listed.

    """
    found, closed = _found(folder, deep)
    shown = [file for file in found if file.suffix.lower() in suffixes or also(file)]
    shown = [file for file in shown if _is_file(file)] + closed
    if but is not None and but.exists():
        shown = [file for file in shown if not file.resolve().is_relative_to(but.resolve())]
    return sorted(shown, key=natural)


def _found(folder: Path, deep: bool) -> tuple[list[Path], list[Path]]:
    """Return what lies in a folder and is no folder itself, and the folders in it that may not be listed."""
    found: list[Path] = []
    closed: list[Path] = []

    def failed(error: OSError) -> None:
        if (place := Path(error.filename)) == folder:
            raise error
        closed.append(place)

    for place, folders, names in os.walk(folder, onerror=failed):
        folders[:] = [name for name in folders if deep and not name.startswith(".")]
        found += [Path(place, name) for name in names if not name.startswith(".")]
    return found, closed


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def user_cache() -> Path | None:
    """Return ``PRANET_CACHE_DIR`` or the folder of the user's cache (XDG Base Directory); None without a home."""
    if given := os.environ.get("PRANET_CACHE_DIR"):
        return Path(given)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pranet"
    except RuntimeError:
        return None


def write(path: Path, content: bytes | str, *, mode: int = NEW, durable: bool = True) -> None:
    """Write a file whole or not at all; text in UTF-8. See ``replacing``."""
    with replacing(path, mode=mode, durable=durable) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, content: Any) -> None:
    """Write JSON (RFC 8259) whole or not at all: named tuples as objects, and what is no finite number as null."""
    write(path, json.dumps(_for_json(content), indent=2, allow_nan=False) + "\n")


def _for_json(content: Any) -> Any:
    if isinstance(content, tuple) and hasattr(content, "_asdict"):
        content = content._asdict()
    if isinstance(content, Mapping):
        return {key: _for_json(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_for_json(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


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
            access = os.O_RDWR if os.access(draft, os.W_OK) else os.O_RDONLY  # NFS locks only what may be written
            descriptor, new = os.open(draft, access | os.O_NOFOLLOW), False
        try:
            lock(descriptor, path)
        except TargetError:
            os.close(descriptor)
            raise
        if identity(draft) == identity(descriptor):  # else it was renamed or removed between the two calls
            if new:
                return descriptor
            draft.unlink()
        os.close(descriptor)


def lock(descriptor: int, path: Path) -> None:
    """Keep other commands from an open file until it is closed.

    Args:
        descriptor: of the file.
        path: what is written.

    Raises:
        TargetError: another command has locked it.

    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise TargetError(f"another command is writing {path}; try again when it has ended") from None


def _resemble(draft: Path, path: Path) -> None:
    """Give a draft the owner, group, mode and extended attributes (access lists) of the file that it replaces."""
    status, own = path.stat(), draft.stat()
    if (status.st_uid, status.st_gid) != (own.st_uid, own.st_gid):
        os.chown(draft, status.st_uid, status.st_gid)
    os.chmod(draft, status.st_mode & 0o7777)
    for name in os.listxattr(path):
        with contextlib.suppress(OSError):  # some belong to the system, such as labels of SELinux
            os.setxattr(draft, name, os.getxattr(path, name))


def identity(path: Path | int) -> Identity | None:
    """Return what tells a file (its path or descriptor) from all others; None if it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
