"""The processes of one service: which of them are ready, and the limits that they share."""

import os
import signal
import struct
from enum import IntEnum

from service.processes.accounts import Accounts
from service.processes.memory import Memory, Places
from service.processes.snapshots import Snapshots

LOADING = 1  # number of the lock that a process holds while it loads weights
MOST_PROCESSES = 128
DRAINING, STARTED, REPLACED, STATES = 0, 1, 8, 16  # where these are; a byte each, or a NUMBER
BEATS = STATES + MOST_PROCESSES
NUMBER = struct.Struct("Q")


class State(IntEnum):
    """The state of one process."""

    ABSENT = 0  # not started, still loading, or ended
    UNREADY = 1
    READY = 2


class Group:
    """What the processes of one service share. One that serves alone is a group of one."""

    def __init__(self, size: int = 1, *, streams: int, archives: int) -> None:
        starts = [BEATS + NUMBER.size * MOST_PROCESSES]
        for length in (streams, archives):
            starts.append(starts[-1] + length)
        table = -(-starts[-1] // 8) * 8
        self.size = size
        self.memory = Memory(table + Accounts.size(size), shared=size > 1)
        self.streams = Places(streams, self.memory, starts[0])
        self.archives = Places(archives, self.memory, starts[1])
        self.accounts = Accounts(self.memory, table, size)
        self.snapshots = Snapshots(size) if size > 1 else None
        self._parent: int | None = None

    def close(self) -> None:
        """Close what this process has open of the group."""
        if self.snapshots:
            self.snapshots.close()
        self.memory.close()

    @property
    def index(self) -> int:
        """Which process of the group this one is."""
        return self.memory.owner

    def enter(self, index: int, parent: int) -> None:
        """Become a process of the group; ``parent`` is the process that watches it."""
        self.memory.owner, self._parent = index, parent

    def leave(self, index: int) -> None:
        """Take back what a process held that has ended; the parent calls it."""
        self.memory.bytes[STATES + index] = State.ABSENT
        self.streams.clear(index)
        self.archives.clear(index)
        self.accounts.clear(index)

    def state(self, index: int) -> State:
        """Return the state of a process."""
        return State(self.memory.bytes[STATES + index])

    def become(self, state: State) -> None:
        """Give a sign of life; change the state of this process if it is another one, and wake the parent."""
        self._add(BEATS + NUMBER.size * self.index)
        if self.state(self.index) is state:
            return
        with self.memory.locked():
            self.memory.bytes[STATES + self.index] = state
            if self.ready == self.size and not self.started:
                self.memory.bytes[STARTED] = 1
        if self._parent == os.getppid():  # otherwise it has ended, and another process may have its id
            os.kill(self._parent, signal.SIGUSR1)

    def beats(self, index: int) -> int:
        """Return how many signs of life a process and its predecessors have given."""
        return self._number(BEATS + NUMBER.size * index)

    def suspect(self, index: int) -> None:
        """Count a process as not ready, until it says that it is; the parent calls it."""
        self.memory.bytes[STATES + index] = State.UNREADY

    @property
    def replacements(self) -> int:
        """How many processes have taken the place of one that had ended."""
        return self._number(REPLACED)

    def replaced(self) -> None:
        """Count a replacement; the parent calls it."""
        self._add(REPLACED)

    @property
    def ready(self) -> int:
        """How many processes are ready."""
        return self.memory.bytes[STATES : STATES + self.size].count(State.READY)

    @property
    def started(self) -> bool:
        """Whether all processes have been ready at once."""
        return self.memory.bytes[STARTED] > 0

    def may_announce(self) -> bool:
        """Return True to one process, and once: when all are ready."""
        with self.memory.locked():
            due = self.memory.bytes[STARTED] == 1
            self.memory.bytes[STARTED] += due
        return due

    @property
    def draining(self) -> bool:
        """Whether the parent has told all processes to drain."""
        return self.memory.bytes[DRAINING] > 0

    def drain(self) -> None:
        """Let every process know at once that the service drains."""
        self.memory.bytes[DRAINING] = 1

    def _number(self, at: int) -> int:
        number: int = NUMBER.unpack_from(self.memory.bytes, at)[0]
        return number

    def _add(self, at: int) -> None:
        """Add 1 to a number that only one process changes."""
        NUMBER.pack_into(self.memory.bytes, at, self._number(at) + 1)
