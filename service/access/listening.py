"""Addresses to listen on, and why one cannot be listened on."""

import os
import socket

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
BACKLOG = 2048


def listener(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Return a socket that listens on the port; ``::`` takes IPv4 too, as in gRPC.

    Args:
        host: an address of this machine, or its name.
        port: 0 picks a free one.
        shared: whether several processes of one user may listen, each of which gets a share of the connections.

    Raises:
        OSError: the port is taken, or the host is not an address of this machine; see ``why``.

    """
    if ":" not in host:
        return socket.create_server((host, port), backlog=BACKLOG, reuse_port=shared)
    both = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server(
        (host, port), family=socket.AF_INET6, backlog=BACKLOG, reuse_port=shared, dualstack_ipv6=both
    )


def reserved(listening: socket.socket) -> socket.socket:
    """Turn a listening socket into one that keeps its port for processes that share it, without connections.

    Another program cannot listen on the port from here on, unless it is one of the same user that shares the port, too;
    ``pranet`` never does.
    """
    family, address = listening.family, listening.getsockname()
    only_6 = family == socket.AF_INET6 and listening.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    listening.close()
    kept = socket.socket(family)
    if family == socket.AF_INET6:
        kept.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_6)
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an earlier service may still linger
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    kept.bind(address)
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)  # with it, others could bind the port, too
    return kept


def why(error: OSError) -> str:
    """Return why an address cannot be listened on."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else "the host name is unknown"
