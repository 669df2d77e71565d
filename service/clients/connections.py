"""How far the clients have read, by their connections: what the servers and the kernel know of it."""

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import NamedTuple

# What HTTP/2 sends past an answer that waits, while a client stalls: answers to its pings, and updates of the window in
# which it sends. In 5 s, these are 50 bytes for each MB that it sends.
ASIDE_BYTES = 16 * 1024
BYTES_ACKED = 120  # where the kernel's tcp_info has this count (linux/tcp.h)


class Connection(NamedTuple):
    """One connection at one moment. All counts are bytes."""

    key: Hashable  # names the connection, as ``Call.connection`` does
    taken: int  # acknowledged by the client since the connection began; 0 if the kernel does not tell
    left: int  # in the kernel, and not acknowledged
    held: int  # more that the server itself holds back
    had_work: bool  # it may hold answers to work that ended before
    abort: Callable[[], None]
    aside: int = 0  # that a client may take while it stalls


Source = Callable[[], Iterator[Connection]]  # yields the open connections of a server


def open_connections(sources: Iterable[Source]) -> dict[Hashable, Connection]:
    """Return the open connections of all servers by their keys."""
    return {each.key: each for source in sources for each in source()}


def connection_of(key: Hashable, transport: asyncio.Transport, *, had_work: bool) -> Connection | None:
    """Return the connection of a transport over TCP or TLS; None if it is closed, or has no key."""
    peer = transport.get_extra_info("socket")
    if key is None or peer is None:  # over TLS, uvloop forgets a closed connection before its protocol is told
        return None
    try:
        taken, left = _counts(peer)
    except OSError:
        return None
    held = transport.get_write_buffer_size()
    if transport.get_extra_info("sslcontext"):  # nobody tells what waits between TLS and the kernel
        held = held or left
    return Connection(key, taken, left, held, had_work, transport.abort)


def connections_at(port: int, key: Callable[[socket.socket], Hashable]) -> Iterator[Connection]:
    """Yield the connections of this process to a port of HTTP/2 whose server does not show them, and cannot abort one.

    None are known while no file descriptor is free: to list them takes one.

    Args:
        port: where the server listens.
        key: returns the key of a connection.

    """
    files, names = "/proc/self/fd", []
    with contextlib.suppress(OSError):
        names = os.listdir(files)
    for name in names:
        with contextlib.suppress(OSError):  # closed in the meantime, or it only listens
            if not os.readlink(f"{files}/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as each:
                if each.family in (socket.AF_INET, socket.AF_INET6) and each.getsockname()[1] == port:
                    counts = _counts(each)
                    yield Connection(key(each), *counts, 0, had_work=True, abort=lambda: None, aside=ASIDE_BYTES)


def _counts(peer: socket.socket) -> tuple[int, int]:
    """Return how many bytes the peer of a TCP connection has acknowledged, and how many it has not.

    Raises:
        OSError: the connection is closed.

    """
    if peer.fileno() < 0:  # where uvloop's sockets raise ValueError
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    taken = 0
    with contextlib.suppress(struct.error):  # an older kernel
        (taken,) = struct.unpack_from("Q", peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128), BYTES_ACKED)
    (left,) = struct.unpack("i", fcntl.ioctl(peer.fileno(), termios.TIOCOUTQ, bytes(4)))
    return taken, left
