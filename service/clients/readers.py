"""Connections whose clients have not read all answers to their work. The end of the service waits for them, too.

A call ends once the operating system, or the HTTP server, has its answer. If the process closed the connection then, a
byte from the client would make the kernel reset it, and drop what it has not sent: a window update of HTTP/2 is enough.
"""

import asyncio
import contextlib
import fcntl
import os
import socket
import struct
import termios
import time
from collections.abc import Callable, Hashable, Iterator
from typing import NamedTuple

from service.clients.awaited import READER, Awaited, taken_from

LOOK_SECONDS = 0.1  # between two looks at answers that are still being read
FILES = "/proc/self/fd"


class Unread(NamedTuple):
    """A connection with bytes that its client has not taken."""

    connection: Hashable
    taken: int  # bytes
    is_counted: bool  # if its client stalls; else its calls are, which wait until the kernel has their answers
    abort: Callable[[], None]


class Readers:
    """What the clients of all servers have not read yet."""

    def __init__(self) -> None:
        self.sources: list[Callable[[], Iterator[Unread]]] = []  # one for each server
        self.left = True  # a client still reads, or none was looked at
        self._awaited: dict[Hashable, Awaited] = {}
        self._given_up: set[Hashable] = set()

    async def look(self) -> int:
        """Give up clients that stall, and wait a little if others still read; return how many given up count."""
        number = self.give_up(stalled_only=True)
        if self.left:
            await asyncio.sleep(LOOK_SECONDS)
        return number

    def give_up(self, *, stalled_only: bool = False) -> int:
        """Close the connections of all clients that have not read to the end, or that stall; return how many count."""
        unread = {each.connection: each for source in self.sources for each in source()}
        now, number = time.monotonic(), 0
        self._awaited = {
            key: self._awaited.get(key, Awaited(READER, now, each.taken)).after_reading(each.taken)
            for key, each in unread.items()
            if key not in self._given_up
        }
        for key, awaited in list(self._awaited.items()):
            if awaited.is_stalled or not stalled_only:
                del self._awaited[key]
                self._given_up.add(key)
                unread[key].abort()
                number += unread[key].is_counted or not stalled_only
        self.left = bool(self._awaited)
        return number


def left_of(connection: socket.socket) -> int:
    """Return how many bytes in the kernel the peer of a TCP connection has not acknowledged.

    Raises:
        OSError: the connection is closed.

    """
    (count,) = struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))
    return int(count)


def unread_at(port: int) -> Iterator[Unread]:
    """Yield the unread connections of this process to a port of gRPC, which does not show its sockets."""
    for name in os.listdir(FILES):
        with contextlib.suppress(OSError):  # closed in the meantime, or it only listens
            if not os.readlink(f"{FILES}/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as each:
                if each.family in (socket.AF_INET, socket.AF_INET6) and each.getsockname()[1] == port and left_of(each):
                    yield Unread(each.getpeername(), taken_from(each), is_counted=False, abort=lambda: None)
