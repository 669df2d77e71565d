"""The gate in front of every HTTP route and WebSocket, the headers that tell browsers to be careful, and HEAD."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from service.access.authentication import Gate
from service.errors import ForeignOrigin, ServiceError, UnknownRoute
from service.observability.access_log import request_id_from

OPEN_PATHS = frozenset({"/", "/livez", "/readyz", "/v2/health/live", "/v2/health/ready", "/docs", "/openapi.json"})
OPEN_FOLDERS = ("/pages/", "/samples/", "/docs/assets/")  # the page's own files, the same for everybody
STREAM_PATHS = frozenset({"/stream"})  # where a WebSocket may be opened
READING = frozenset({"GET", "HEAD", "OPTIONS"})  # methods that any site's page may use; it cannot read the answers
TOKEN_PROTOCOL = "pranet.bearer."  # before the token, in the subprotocols that a WebSocket offers
SAFE_HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}

Refuse = Callable[[Request, ServiceError], Awaitable[Response]]

log = logging.getLogger("pranet.access")


class HttpGate:
    """ASGI middleware: whatever is not listed as open needs a valid token, routes of later days too."""

    def __init__(
        self, app: ASGIApp, gate: Gate, refuse: Refuse, *, public_metrics: bool, origins: Sequence[str]
    ) -> None:
        self._app = app
        self._gate = gate
        self._refuse = refuse  # makes the answer of an error
        self._origins = origins  # of other pages that may send frames
        self._open = OPEN_PATHS | {"/metrics"} if public_metrics else OPEN_PATHS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        path = scope["path"]
        if scope["type"] == "http" and (path in self._open or path.startswith(OPEN_FOLDERS)):
            await self._app(scope, receive, send)
            return
        with ExitStack() as stack:
            try:
                stack.enter_context(self._gate.entered(_authorizations(scope)))
                self._check(HTTPConnection(scope))
            except ServiceError as error:
                await self._answer(error, scope, receive, send)
                return
            await self._app(scope, receive, send)

    def _check(self, connection: HTTPConnection) -> None:
        """Refuse a WebSocket where there is none, and what another site's page sends.

        Browsers leave that to the server: they open the WebSocket, and send a form or plain bytes and only keep the
        answer from the page, so its pictures would be segmented. Programs name no origin.
        """
        is_socket = connection.scope["type"] == "websocket"
        if is_socket and connection.scope["path"] not in STREAM_PATHS:  # routes and mounts are not made for it
            raise UnknownRoute("no WebSocket is served under this path; the video stream is at /stream")
        origin = connection.headers.get("origin")
        if origin is None or origin in self._origins or "*" in self._origins:
            return
        if not is_socket and connection.scope["method"] in READING:
            return
        if origin.partition("://")[2] != connection.headers.get("host"):
            raise ForeignOrigin(
                f"pages of {origin} may not send to this service; its operator can let them (CORS_ORIGINS)"
            )

    async def _answer(self, error: ServiceError, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await (await self._refuse(Request(scope, receive), error))(scope, receive, send)
            return
        request = Request({**scope, "type": "http", "method": "GET"})
        request.state.request_id = request_id_from(request.headers.get("x-request-id", ""))
        await WebSocket(scope, receive, send).send_denial_response(await self._refuse(request, error))
        request.app.state.service.metrics.requests.labels("websocket", str(error.status)).inc()
        log.info("websocket refused %d id=%s", error.status, request.state.request_id)


class SafeHeaders:
    """ASGI middleware: puts ``SAFE_HEADERS`` on every answer that does not set its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SAFE_HEADERS.items():
                    headers.setdefault(name, value)
                if scope["scheme"] == "https":  # browsers report it as a fault over plain HTTP
                    headers.setdefault("cross-origin-opener-policy", "same-origin")
                if "etag" not in headers:  # all but the page's own files may be about a patient
                    headers.setdefault("cache-control", "no-store")
            await send(message)

        await self._app(scope, receive, send_safely)


class HeadAsGet:
    """ASGI middleware: HEAD, which load balancers ask with, is answered as GET; the HTTP server leaves the body out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def send_allowed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("allow") == "GET":
                    headers["allow"] = "GET, HEAD"
            await send(message)

        is_head = scope["type"] == "http" and scope["method"] == "HEAD"
        await self._app({**scope, "method": "GET"} if is_head else scope, receive, send_allowed)


def _authorizations(scope: Scope) -> list[str]:
    """Return the ``Authorization`` headers; of a WebSocket, which has none in browsers, else subprotocols."""
    offered = scope.get("subprotocols", ())
    return [value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"] or [
        f"Bearer {each.removeprefix(TOKEN_PROTOCOL)}" for each in offered if each.startswith(TOKEN_PROTOCOL)
    ]
