"""The HTTP server: uvicorn with this service's connection classes, timeouts, TLS and graceful shutdown."""

import asyncio
import contextlib
import functools
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from service.access.tls import HANDSHAKE_SECONDS
from service.clients.connections import Connection
from service.http.protocol import HttpProtocol
from service.http.websocket_protocol import WebSocketProtocol
from service.runtime import Service

# Idle timeout. It is longer than that of clients and proxies (httpx 5 s, nginx and most load balancers 60 s): if the
# server closed first, a request sent at that moment would fail.
KEEP_ALIVE_SECONDS = 75
# A peer that disappeared without closing the connection is disconnected after the sum of both times.
WS_PING_SECONDS = 10.0
WS_PING_TIMEOUT_SECONDS = 5.0

UNREAD_SECONDS = 30.0  # how long a peer may not read sent bytes before the kernel closes its connection

# Once all work is answered, or cut off: for errors and other requests to arrive, and for their answers to be read.
OTHERS_SECONDS = 1.0
CLOSE_SECONDS = 1  # more, for the tasks of connections that are then closed


@contextlib.asynccontextmanager
async def listening(app: ASGIApp, service: Service, listener: socket.socket) -> AsyncIterator[None]:
    """Serve an ASGI application on a bound socket inside the block; at its end, let answers in progress finish."""
    tls, settings = service.tls, service.settings
    # Connections inherit this option from the listening socket.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(UNREAD_SECONDS * 1e3))
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        workers=1,  # one device, one queue, one metrics registry; otherwise WEB_CONCURRENCY would start more
        server_header=False,
        proxy_headers=False,  # uvicorn would believe any proxy on this machine; see ``proxies``
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=round(OTHERS_SECONDS) + CLOSE_SECONDS,
        ws=functools.partial(WebSocketProtocol, calls=service.calls),  # type: ignore[arg-type]
        ws_max_size=settings.cut_off_bytes,
        ws_ping_interval=WS_PING_SECONDS,
        ws_ping_timeout=WS_PING_TIMEOUT_SECONDS,
        http=functools.partial(HttpProtocol, calls=service.calls),  # type: ignore[arg-type]
        ssl_context_factory=None if tls is None else lambda *_: tls.context(),
    )
    server = _Server(config)
    service.calls.sources.append(server.connections)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event for this
            await asyncio.sleep(0.005)
        yield
    finally:
        server.should_exit = True
        await serving


class _Server(uvicorn.Server):
    """Leaves signals to ``service.app``, which stops REST and gRPC together, and limits the time of TLS handshakes."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen as uvicorn does, but with ``HANDSHAKE_SECONDS`` for TLS instead of asyncio's 60 s."""
        loop, tls = asyncio.get_running_loop(), self.config.ssl
        protocol: Any = self.config.http_protocol_class
        connected = functools.partial(protocol, config=self.config, server_state=self.server_state, app_state={})
        seconds = HANDSHAKE_SECONDS if tls else None
        self.servers = [
            await loop.create_server(
                connected, sock=each, ssl=tls, ssl_handshake_timeout=seconds, backlog=self.config.backlog
            )
            for each in sockets or ()
        ]
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down as uvicorn does, but close what is left after ``OTHERS_SECONDS``: work was waited for before."""
        ending = asyncio.get_running_loop().call_later(OTHERS_SECONDS, self._give_up)
        try:
            await super().shutdown(sockets)
        finally:
            ending.cancel()

    def connections(self) -> Iterator[Connection]:
        """Yield the open connections."""
        for protocol in list(self.server_state.connections):
            assert isinstance(protocol, HttpProtocol | WebSocketProtocol)
            if connection := protocol.connection():
                yield connection

    def _give_up(self) -> None:
        for protocol in list(self.server_state.connections):
            protocol.transport.abort()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
