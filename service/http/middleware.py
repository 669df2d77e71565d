"""ASGI middleware: every HTTP request and WebSocket is a call, its answer has headers that keep browsers careful."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.calls import Call, Calls, Transport
from service.errors import ForeignOrigin, ServiceError, UnknownRoute
from service.tasks import forget_frames

OPEN_PATHS = frozenset({"/", "/livez", "/readyz", "/v2/health/live", "/v2/health/ready", "/docs", "/openapi.json"})
OPEN_FOLDERS = ("/pages/", "/samples/", "/docs/assets/")  # the page's own files, the same for everybody
QUIET_PATHS = frozenset({"/livez", "/readyz", "/metrics"})  # polled for ever
STREAM_PATHS = frozenset({"/stream"})  # where a WebSocket may be opened
READING = frozenset({"GET", "HEAD", "OPTIONS"})  # methods that any site's page may use; it cannot read the answers
TIMEOUT_HEADER = "x-request-timeout-ms"
TOKEN_PROTOCOL = "pranet.bearer."  # before the token, in the subprotocols that a WebSocket offers
SAFE_HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
REST = Transport(
    "rest",
    "http.response.status_code",
    ok="200",
    code=lambda error: str(error.status),
    failures=("5",),
)
HANDSHAKE = replace(REST, name="websocket")  # of a WebSocket, refused by an HTTP status


class HttpCalls:
    """Makes a call of every request, also to routes that are added later, and has its error encoded.

    ``scope["state"]`` holds the ``call``, and the ``error`` that ended it. ``errors`` names the ASGI applications that
    encode the error of a request ("http") and of a WebSocket ("websocket").
    """

    def __init__(
        self,
        app: ASGIApp,
        calls: Calls,
        *,
        errors: Mapping[str, ASGIApp],
        public_metrics: bool,
        origins: Sequence[str],
    ) -> None:
        self._app = app
        self._calls = calls
        self._errors = errors
        self._origins = origins  # of other pages that may send frames
        self._open = OPEN_PATHS | {"/metrics"} if public_metrics else OPEN_PATHS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if scope.get("method") == "HEAD":  # load balancers ask with it; the HTTP server leaves the body out
            scope = {**scope, "method": "GET"}
        call = self._call(scope, headers)
        state = scope.setdefault("state", {})
        state["call"] = call

        answered = False

        async def send_with_headers(message: Message) -> None:
            nonlocal answered
            if message["type"] in ("http.response.start", "websocket.accept"):
                call.name = _route(scope) or call.name
            if message["type"] == "http.response.start":
                answered, call.code = True, str(message["status"])
                _add_headers(scope, MutableHeaders(scope=message), call)
            await send(message)

        try:
            async with self._calls.enter(call):
                try:
                    await self._app(scope, receive, send_with_headers)
                except BaseException:
                    call.name = _route(scope) or call.name
                    raise
        except ServiceError as error:
            forget_frames(error)  # or it and the request, in whose state it is kept, would hold each other
            if not answered:
                state["error"] = error
                await self._errors[scope["type"]](scope, receive, send_with_headers)

    def _call(self, scope: Scope, headers: Mapping[str, str]) -> Call:
        path, is_socket = scope["path"], scope["type"] == "websocket"
        preflight = scope.get("method") == "OPTIONS" and bool(self._origins)  # browsers send it without a token
        return Call(
            transport=HANDSHAKE if is_socket else REST,
            name="WS" if is_socket else "HTTP",
            headers=headers,
            authorizations=_authorizations(scope),
            timeout=headers.get(TIMEOUT_HEADER),
            is_open=not is_socket and (path in self._open or path.startswith(OPEN_FOLDERS) or preflight),
            is_work=not is_socket and scope["method"] not in READING,  # a stream tells once it is open
            is_stream=is_socket,
            is_quiet=path in QUIET_PATHS,
            fault=self._fault(scope, headers),
        )

    def _fault(self, scope: Scope, headers: Mapping[str, str]) -> ServiceError | None:
        """Return what is wrong with a WebSocket where none is served, and with what another site's page sends.

        Browsers leave that to the server: they open the WebSocket, and send a form or plain bytes and only keep the
        answer from the page, so its pictures would be segmented. Programs name no origin.
        """
        is_socket = scope["type"] == "websocket"
        if is_socket and scope["path"] not in STREAM_PATHS:  # routes and mounts are not made for it
            return UnknownRoute("no WebSocket is served under this path; the video stream is at /stream")
        origin = headers.get("origin")
        if origin is None or origin in self._origins or "*" in self._origins:
            return None
        if not is_socket and scope["method"] in READING:
            return None
        if origin.partition("://")[2] != headers.get("host"):
            return ForeignOrigin(
                f"pages of {origin} may not send to this service; its operator can let them (CORS_ORIGINS)"
            )
        return None


def _add_headers(scope: Scope, headers: MutableHeaders, call: Call) -> None:
    headers["x-request-id"] = call.request_id
    if call.traceparent:
        headers["traceparent"] = call.traceparent
    for name, value in SAFE_HEADERS.items():
        headers.setdefault(name, value)
    if scope["scheme"] == "https":  # browsers report it as a fault over plain HTTP
        headers.setdefault("cross-origin-opener-policy", "same-origin")
    if "etag" not in headers:  # all but the page's own files may be about a patient
        headers.setdefault("cache-control", "no-store")
    if headers.get("allow") == "GET":
        headers["allow"] = "GET, HEAD"


def _authorizations(scope: Scope) -> list[str]:
    """Return the ``Authorization`` headers; of a WebSocket, which has none in browsers, else subprotocols."""
    offered = scope.get("subprotocols", ())
    return [value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"] or [
        f"Bearer {each.removeprefix(TOKEN_PROTOCOL)}" for each in offered if each.startswith(TOKEN_PROTOCOL)
    ]


def _route(scope: Scope) -> str:
    """Name the route that was served. Paths and methods of the client's own making may name a patient."""
    route = scope.get("route")
    path = f"{scope.get('root_path', '')}{getattr(route, 'path', '')}"
    if scope["type"] == "websocket":
        return f"WS {path}" if route else ""
    return f"{scope['method']} {path}" if scope["method"] in (getattr(route, "methods", None) or ()) else ""
