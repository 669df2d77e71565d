"""Clients that have not read all answers to accepted work. The end of the service waits for them.

A call ends once the operating system, or the HTTP server, has its answer. If the process closed the connection then, a
byte from the client would make the kernel reset it, and drop what it has not sent: a window update of HTTP/2 is enough.
"""

import math
import time
from collections.abc import Hashable, Mapping

from service.clients.awaited import READER, Awaited
from service.clients.connections import Connection


class _Reading:
    """How far one client has read what was written to it when the last answer to its work was."""

    def __init__(self, connection: Connection) -> None:
        self.awaited = Awaited(READER, time.monotonic(), connection.taken)
        self._end = math.inf  # bytes since the connection began; known once the kernel has all

    def is_over(self, connection: Connection) -> bool:
        """Tell whether the client has read all of it, whatever was written later."""
        self.awaited = self.awaited.after_reading(connection.taken)
        if not connection.held:
            self._end = min(self._end, connection.taken + connection.left)
        return connection.taken >= self._end


class Readers:
    """The clients that still read."""

    def __init__(self) -> None:
        self._reading: dict[Hashable, _Reading] = {}

    def __bool__(self) -> bool:
        return bool(self._reading)

    def expect(self, connection: Connection) -> None:
        """Wait until the client has read what was written to it so far."""
        self._reading[connection.key] = _Reading(connection)

    def look(self, connections: Mapping[Hashable, Connection]) -> int:
        """Look how far the clients of open connections have read; give up those that stall, and return how many."""
        number = 0
        for key, reading in list(self._reading.items()):
            connection = connections.get(key)
            if connection is None or reading.is_over(connection):
                del self._reading[key]
            elif reading.awaited.is_stalled:
                del self._reading[key]
                connection.abort()
                number += 1
        return number

    def give_up(self, connections: Mapping[Hashable, Connection]) -> int:
        """Give up all that are left after a look at these connections, and return how many."""
        unread, self._reading = self._reading, {}
        for key in unread:
            connections[key].abort()
        return len(unread)
