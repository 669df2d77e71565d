"""Undoes what a reverse proxy changes of a request: the path in front of the service's own, and the host.

``X-Forwarded-Host`` and ``X-Forwarded-Proto`` are believed from named proxies only: anybody can send them.
"""

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from starlette.types import Scope

Network = IPv4Network | IPv6Network


def as_sent(
    scope: Scope, headers: Mapping[str, str], root_path: str, proxies: Sequence[Network]
) -> tuple[Scope, dict[str, str]]:
    """Return an ASGI scope and its headers as the client sent them to the proxy.

    Args:
        scope: of a request or WebSocket.
        headers: its headers by their names in lower case.
        root_path: path below which the proxy serves the service. It stays in front of ``path`` (ASGI, HTTP connection
            scope), whether the proxy passes it on or not.
        proxies: the proxies to believe.

    """
    path, sent = scope["path"], dict(headers)
    path = path if path == root_path or path.startswith(f"{root_path}/") else root_path + path
    scope = {**scope, "path": path, "root_path": root_path}
    client = scope.get("client")
    if client and any(_address(client[0]) in each for each in proxies):
        if host := _last(headers, "x-forwarded-host"):
            sent["host"] = host
            others = [(name, value) for name, value in scope["headers"] if name != b"host"]
            scope["headers"] = [*others, (b"host", host.encode("latin-1"))]
        if _last(headers, "x-forwarded-proto").lower() == "https":
            scope["scheme"] = "https" if scope["type"] == "http" else "wss"
    return scope, sent


def _last(headers: Mapping[str, str], name: str) -> str:
    """Return the value that the nearest proxy has added; those before it may be the client's own."""
    return headers.get(name, "").rpartition(",")[2].strip()


def _address(text: str) -> IPv4Address | IPv6Address:
    """Return an address; one of IPv4 as such, although a socket of both kinds writes it as IPv6."""
    address = ip_address(text)
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
