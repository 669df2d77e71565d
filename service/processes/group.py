"""The processes of one service: which of them are ready, and the limits that they share."""

import os
import signal
from enum import IntEnum

from service.processes.accounts import Accounts
from service.processes.memory import Memory, Places
from service.processes.snapshots import Snapshots

LOADING = 1  # number of the lock that a process holds while it loads weights
DRAINING, STARTED, STATES = 0, 1, 8  # where these bytes are
MOST_PROCESSES = 128


class State(IntEnum):
    """The state of one process."""

    ABSENT = 0  # not started, still loading, or ended
    UNREADY = 1
    READY = 2


class Group:
    """What the processes of one service share. One that serves alone is a group of one."""

    def __init__(self, size: int = 1, *, streams: int, archives: int) -> None:
        starts = [STATES + MOST_PROCESSES]
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
        """Change the state of this process, and wake the parent."""
        if self.state(self.index) is state:
            return
        with self.memory.locked():
            self.memory.bytes[STATES + self.index] = state
            if self.ready == self.size and not self.started:
                self.memory.bytes[STARTED] = 1
        if self._parent == os.getppid():  # otherwise it has ended, and another process may have its id
            os.kill(self._parent, signal.SIGUSR1)

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
