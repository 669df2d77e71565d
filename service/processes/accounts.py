"""What each caller has used of its limits, in memory that several processes may share."""

import hashlib
import struct

from service.processes.memory import Memory

ROWS = 2**16  # callers; more would share rows
KEY = struct.Struct("8s")
TIME = struct.Struct("d")
COUNT = struct.Struct("I")


class Account:
    """The account of one caller. New ones are all zeros."""

    def __init__(
        self, memory: Memory | None = None, times: int = 0, counts: int = TIME.size, processes: int = 1
    ) -> None:
        self._memory = memory or Memory(TIME.size + COUNT.size)
        self._times = times  # where its time is
        self._counts = [counts + each * ROWS * COUNT.size for each in range(processes)]  # where each process counts
        self.locked = self._memory.locked

    @property
    def full_at(self) -> float:
        """When the bucket of requests is full again, seconds on the monotonic clock of this machine."""
        moment: float = TIME.unpack_from(self._memory.bytes, self._times)[0]
        return moment

    @full_at.setter
    def full_at(self, moment: float) -> None:
        TIME.pack_into(self._memory.bytes, self._times, moment)

    @property
    def open(self) -> int:
        """How many requests and streams are open, in all processes."""
        return sum(self._count(at) for at in self._counts)

    def add(self, change: int) -> None:
        """Count requests that this process has opened, or ended if ``change`` is negative."""
        own = self._counts[self._memory.owner]
        COUNT.pack_into(self._memory.bytes, own, self._count(own) + change)

    def _count(self, at: int) -> int:
        number: int = COUNT.unpack_from(self._memory.bytes, at)[0]
        return number


class Accounts:
    """A hash table of accounts: keys, then times, then the counts of each process."""

    def __init__(self, memory: Memory, start: int, processes: int) -> None:
        self._memory = memory
        self._keys = start
        self._times = start + ROWS * KEY.size
        self._counts = self._times + ROWS * TIME.size
        self._processes = processes

    @staticmethod
    def size(processes: int) -> int:
        """Return how many bytes the table takes."""
        return ROWS * (KEY.size + TIME.size + processes * COUNT.size)

    def of(self, name: str) -> Account:
        """Return the account of a caller."""
        row = self._row(hashlib.sha256(name.encode()).digest()[: KEY.size])
        times, counts = self._times + row * TIME.size, self._counts + row * COUNT.size
        return Account(self._memory, times, counts, self._processes)

    def clear(self, index: int) -> None:
        """Count nothing as open any more in a process that has ended."""
        start, size = self._counts + index * ROWS * COUNT.size, ROWS * COUNT.size
        self._memory.bytes[start : start + size] = bytes(size)

    def _row(self, key: bytes) -> int:
        first = int.from_bytes(key) % ROWS
        with self._memory.locked():
            for step in range(ROWS):
                row = (first + step) % ROWS
                at = self._keys + row * KEY.size
                found = self._memory.bytes[at : at + KEY.size]
                if not any(found):
                    self._memory.bytes[at : at + KEY.size] = key
                    return row
                if found == key:
                    return row
        return first
