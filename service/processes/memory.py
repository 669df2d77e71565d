"""Memory that a process shares with those that it forks, and locks that end with the process that holds them."""

import contextlib
import fcntl
import mmap
import os
from collections.abc import Iterator


class Memory:
    """Zeroed bytes. If they are shared, ``locked`` excludes the other processes, not the threads of this one."""

    def __init__(self, size: int, *, shared: bool = False) -> None:
        self.bytes = mmap.mmap(-1, size)  # a page takes memory once it is written
        self.owner = 0  # index of this process
        self._locks = os.memfd_create("pranet-locks") if shared else None

    def close(self) -> None:
        """Close the file of the locks; the bytes are freed with the last reference to them."""
        if self._locks is not None:
            os.close(self._locks)

    @contextlib.contextmanager
    def locked(self, number: int = 0) -> Iterator[None]:
        """Hold one of the locks inside the block; the kernel frees it if the process is killed."""
        if self._locks is None:
            yield
            return
        fcntl.lockf(self._locks, fcntl.LOCK_EX, 1, number)
        try:
            yield
        finally:
            fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, number)
