"""Addresses to listen on, and why one cannot be listened on."""

import os
import socket

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
BACKLOG = 2048


def listener(host: str, port: int) -> socket.socket:
    """Return a socket that listens on the port; ``::`` takes IPv4 too, as in gRPC.

    Raises:
        OSError: the port is taken, or the host is not an address of this machine; see ``why``.

    """
    if ":" not in host:
        return socket.create_server((host, port), backlog=BACKLOG)
    both = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=both)


def why(error: OSError) -> str:
    """Return why an address cannot be listened on."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else "the host name is unknown"
