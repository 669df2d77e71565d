"""Resources of a server's process and its children, as ``/proc`` shows them."""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Resources:
    """What a process and its children hold at one moment."""

    resident: int  # bytes
    threads: int
    sockets: int
    files: tuple[str, ...]  # open, other than sockets


def held(process: int) -> Resources:
    """Return what a process and its children hold; nothing if it has ended."""
    resident = threads = sockets = 0
    files: list[str] = []
    for each in _family(process):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            status = (PROC / str(each) / "status").read_text()
            resident += 1024 * _field(status, "VmRSS")
            threads += _field(status, "Threads")
            targets = list(_targets(each))
            others = [target for target in targets if not target.startswith("socket:")]
            sockets += len(targets) - len(others)
            files += others
    return Resources(resident, threads, sockets, tuple(sorted(files)))


def _family(process: int) -> Iterator[int]:
    yield process
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in (PROC / str(process) / "task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _family(int(child))


def _targets(process: int) -> Iterator[str]:
    for descriptor in (PROC / str(process) / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            yield os.readlink(descriptor)


def _field(status: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", status, re.M)
    return int(found[1]) if found else 0  # a process that has ended, but nobody waited for it
