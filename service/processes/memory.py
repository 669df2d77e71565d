"""Memory that a process shares with those that it forks, locks that end with their holder, and places in it."""

import contextlib
import fcntl
import logging
import mmap
import os
import time
from collections.abc import Iterator

HELD_SECONDS = 1.0  # for a lock that others hold for microseconds
SHORT_WAIT_SECONDS, WAIT_SECONDS = 0.0005, 0.05  # between two attempts to get a lock

log = logging.getLogger(__name__)


class Memory:
    """Zeroed bytes. If they are shared, ``locked`` excludes the other processes, not the threads of this one."""

    def __init__(self, size: int, *, shared: bool = False) -> None:
        self.bytes = mmap.mmap(-1, size)  # a page takes memory once it is written
        self.owner = 0  # index of this process
        self._is_kept = False  # whether another process kept the lock when this one last asked for it
        self._locks = os.memfd_create("pranet-locks") if shared else None

    def close(self) -> None:
        """Close the file of the locks; the bytes are freed with the last reference to them."""
        if self._locks is not None:
            os.close(self._locks)

    @contextlib.contextmanager
    def locked(self, number: int = 0) -> Iterator[None]:
        """Hold one of the locks inside the block; the kernel frees it if the process is killed.

        A process that is stopped inside its block keeps the lock. The others wait ``HELD_SECONDS`` for it once, and go
        on without the lock until they get it: a limit may then be passed by one, but no event loop stands still.
        """
        held = self._locks is not None and self._lock(self._locks, number)
        try:
            yield
        finally:
            if held and self._locks is not None:
                fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, number)

    def _lock(self, locks: int, number: int) -> bool:
        """Take a lock; return False if another process keeps it."""
        end = time.monotonic() + (0.0 if self._is_kept else HELD_SECONDS)
        while True:
            try:
                fcntl.lockf(locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
            except BlockingIOError:
                if time.monotonic() < end:
                    time.sleep(SHORT_WAIT_SECONDS)
                    continue
                if not self._is_kept:
                    log.error("another process keeps a lock of all processes; limits are inexact until it goes on")
                self._is_kept = True
                return False
            self._is_kept = False
            return True

    @contextlib.contextmanager
    def locked_long(self, number: int) -> Iterator[None]:
        """Hold a lock for long inside the block, in a thread; it must not be taken by ``locked``, too.

        It asks for the lock again and again: the kernel takes a process that sleeps for this lock, while another thread
        of it holds ``locked``, for a part of a deadlock (EDEADLK), since it does not know of threads.
        """
        while self._locks is not None:
            try:
                fcntl.lockf(self._locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
                break
            except BlockingIOError:
                time.sleep(WAIT_SECONDS)
        try:
            yield
        finally:
            if self._locks is not None:
                fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, number)


class Places:
    """A limited number of numbered places.

    Each has one byte: 0 if it is free, else 1 + the index of the process that holds it.
    """

    def __init__(self, count: int, memory: Memory | None = None, start: int = 0) -> None:
        self.count = count
        self.taken = 0  # by this process
        self._memory = memory or Memory(count)
        self._start = start

    def take(self) -> int | None:
        """Take the free place with the lowest number; return the number, or None if no place is free."""
        with self._memory.locked():
            place = self._memory.bytes.find(b"\0", self._start, self._start + self.count)
            if place < 0:
                return None
            self._memory.bytes[place] = 1 + self._memory.owner
        self.taken += 1
        return place - self._start

    def give_back(self, number: int) -> None:
        """Free a place that this process has taken."""
        self._memory.bytes[self._start + number] = 0
        self.taken -= 1

    def clear(self, index: int) -> None:
        """Free the places of a process that has ended."""
        for place in range(self._start, self._start + self.count):  # others give their own back meanwhile
            if self._memory.bytes[place] == 1 + index:
                self._memory.bytes[place] = 0
