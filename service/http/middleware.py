"""ASGI middleware: turns every HTTP request and WebSocket into a call, and adds security headers to every answer."""

import mimetypes
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from http import HTTPMethod, HTTPStatus

from starlette.datastructures import MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.calls import UNKNOWN, Call, Calls, Transport
from service.clients.awaited import NOBODY, READER, Awaited
from service.errors import ForeignOrigin, ServiceError, UnknownRoute
from service.http import content_encoding
from service.http.content_encoding import PACKED_TYPES
from service.http.proxies import Network, as_sent
from service.tasks import drop_tracebacks

OPEN_PATHS = frozenset(
    {"", "/", "/livez", "/readyz", "/v2/health/live", "/v2/health/ready", "/docs", "/docs/try", "/openapi.json"}
)
OPEN_FOLDERS = ("/pages/", "/samples/", "/docs/assets/")  # static files of the web page
MODEL_READY = ("/v2/models/pranet/ready", "/v2/models/pranet/versions/1/ready")
QUIET_PATHS = frozenset(  # polled all the time
    {"/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready", *MODEL_READY}
)
STREAM_PATHS = frozenset({"/stream"})  # the paths that accept a WebSocket
STATE_PATHS = frozenset({"/v2/repository/index"})  # answered in every state of the service, like a GET
METHODS = frozenset(HTTPMethod)  # named in logs and traces; another one was chosen by the client
READING = frozenset({"GET", "HEAD", "OPTIONS"})  # safe for pages of other sites: browsers hide the answers from them
NOT_MODIFIED = "304"
DEFAULT_PORTS = {"http": ":80", "https": ":443"}
CONNECTION = "connection"  # in the state of a connection: its key
TIMEOUT_HEADER = "x-request-timeout-ms"
TOKEN_PROTOCOL = "pranet.bearer."  # prefix of the token in a WebSocket's subprotocols
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
HANDSHAKE = replace(REST, name="websocket")  # a refused handshake is answered with an HTTP status


class HttpCalls:
    """Runs every request as a call, whatever its route, and has its error encoded.

    The ``Call`` is in ``scope["state"]["call"]``, and the error that ended it in ``scope["state"]["error"]``.

    Args:
        app: the application with the routes.
        calls: serves the calls.
        errors: ASGI applications that encode the error of a request (``"http"``) and of a WebSocket (``"websocket"``).
        public_metrics: ``/metrics`` needs no token.
        origins: origins of other web pages that may send frames; ``*`` for all.
        paths: paths of the application that logs and traces may name before a route has matched.
        root_path: prefix of all paths, as behind a proxy.
        proxies: addresses whose ``X-Forwarded-*`` headers are believed.

    """

    def __init__(
        self,
        app: ASGIApp,
        calls: Calls,
        *,
        errors: Mapping[str, ASGIApp],
        public_metrics: bool,
        origins: Sequence[str],
        paths: Set[str] = frozenset(),
        root_path: str = "",
        proxies: Sequence[Network] = (),
    ) -> None:
        self._app = app
        self._calls = calls
        self._errors = errors
        self._origins = [normalised(each) for each in origins]
        self._paths = paths
        self._root = root_path
        self._proxies = proxies
        self._open = open_paths(public_metrics=public_metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or WebSocket (ASGI)."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if scope.get("method") == "HEAD":  # used by load balancers; the HTTP server omits the body of the answer
            scope = {**scope, "method": "GET"}
        if self._root or self._proxies:
            scope, headers = as_sent(scope, headers, self._root, self._proxies)
        state = scope.setdefault("state", {})
        call = state["call"] = self._call(scope, headers)

        answered, complete, forward = False, False, send

        async def send_with_headers(message: Message) -> None:
            nonlocal answered, complete, forward
            if message["type"] in ("http.response.start", "websocket.accept"):
                call.name = self._route(scope) or call.name
            if message["type"] == "http.response.start":
                answered, call.code = True, str(message["status"])
                given = MutableHeaders(scope=message)
                _add_headers(scope, given, call)
                kind = given.get("content-type", "").partition(";")[0]
                if call.code == NOT_MODIFIED:
                    kind = mimetypes.guess_type(scope["path"])[0] or ""  # of a static file; the answer names none
                if kind in PACKED_TYPES and "accept-encoding" in headers and "content-range" not in given:
                    if call.code == NOT_MODIFIED:
                        content_encoding.weaken(given, headers["accept-encoding"])
                    else:
                        forward = content_encoding.packed(send, headers["accept-encoding"])
            call.awaited = Awaited(READER, time.monotonic())
            await forward(message)
            call.awaited = NOBODY
            complete = message["type"] == "http.response.body" and not message.get("more_body")

        app = self._app
        if self._root and scope["path"] == self._root:  # below which the page looks for its files
            app = RedirectResponse(f"{self._root.rpartition('/')[2]}/", HTTPStatus.PERMANENT_REDIRECT)
        try:
            async with self._calls.enter(call):
                try:
                    await app(scope, receive, send_with_headers)
                except BaseException:
                    call.name = self._route(scope) or call.name
                    if answered and not complete:
                        call.code = ""  # of an answer that has only begun
                    if isinstance(forward, content_encoding.Packer) and forward.waits:
                        answered, forward = False, send
                    raise
        except ServiceError as error:
            drop_tracebacks(error)  # the request's state refers to the error: breaks the reference cycle
            if not answered:
                state["error"] = error
                await self._errors[scope["type"]](scope, receive, send_with_headers)

    def _call(self, scope: Scope, headers: Mapping[str, str]) -> Call:
        path, is_socket = scope["path"].removeprefix(self._root), scope["type"] == "websocket"
        preflight = scope.get("method") == "OPTIONS" and bool(self._origins)  # CORS; browsers send it without a token
        return Call(
            transport=HANDSHAKE if is_socket else REST,
            name=self._unrouted(scope["method"] if not is_socket else "WS", path),
            headers=headers,
            authorizations=_authorizations(scope),
            timeout=headers.get(TIMEOUT_HEADER),
            is_open=not is_socket and (path in self._open or path.startswith(OPEN_FOLDERS) or preflight),
            # a stream checks readiness once it is open
            is_work=not is_socket and scope["method"] not in READING and path not in STATE_PATHS,
            is_stream=is_socket,
            is_quiet=path in QUIET_PATHS,
            connection=scope["state"].get(CONNECTION),
            fault=self._fault(scope, headers),
        )

    def _fault(self, scope: Scope, headers: Mapping[str, str]) -> ServiceError | None:
        """Return the error of a WebSocket to a wrong path, or of a cross-origin request that is not allowed.

        Browsers leave this check to the server. They open a WebSocket of any page, and send its forms and plain bytes;
        they only hide the answer from the page. Without the check, any site could have pictures segmented. Programs
        other than browsers send no ``Origin``.
        """
        is_socket = scope["type"] == "websocket"
        # Other routes and mounts fail on a WebSocket.
        if is_socket and scope["path"].removeprefix(self._root) not in STREAM_PATHS:
            return UnknownRoute("this path accepts no WebSocket; the video stream is at /stream")
        origin = headers.get("origin")
        if origin is None or normalised(origin) in self._origins or "*" in self._origins:
            return None
        if not is_socket and scope["method"] in READING:
            return None
        scheme = origin.partition("://")[0]  # a proxy may end TLS
        if origin == "null":
            told = "pages without an origin, such as files, are not allowed to send requests; open the page over HTTP"
            return ForeignOrigin(told)
        if normalised(origin) != normalised(f"{scheme}://{headers.get('host')}"):
            return ForeignOrigin(
                f"pages of {origin[:80]} are not allowed to send requests to this service; ask its operator to add the "
                "origin to CORS_ORIGINS"
            )
        return None

    def _unrouted(self, method: str, path: str) -> str:
        """Return the name of a call before its route is known, of words that the service knows."""
        known = method if method in METHODS or method == "WS" else "HTTP"
        return f"{known} {path if path in self._paths else UNKNOWN}"

    def _route(self, scope: Scope) -> str:
        """Return method and path of the matched route; never the client's own path, which may hold a patient's name."""
        route = scope.get("route")
        path = f"{scope.get('root_path', '').removeprefix(self._root)}{getattr(route, 'path', '')}"
        if scope["type"] == "websocket":
            return f"WS {path}" if route else ""
        return f"{scope['method']} {path}" if scope["method"] in (getattr(route, "methods", None) or ()) else ""


def open_paths(*, public_metrics: bool) -> Set[str]:
    """Return the paths that need no token, other than those of static files."""
    return OPEN_PATHS | {"/metrics"} if public_metrics else OPEN_PATHS


def normalised(origin: str) -> str:
    """Return an origin as browsers write it: in lower case, without the default port (RFC 6454, section 6.2)."""
    scheme, separator, host = origin.lower().partition("://")
    return f"{scheme}{separator}{host.removesuffix(DEFAULT_PORTS.get(scheme, ''))}"


def _add_headers(scope: Scope, headers: MutableHeaders, call: Call) -> None:
    headers.update(call.answer_headers)
    for name, value in SAFE_HEADERS.items():
        headers.setdefault(name, value)
    if scope["scheme"] == "https":  # over plain HTTP, browsers ignore it and print a warning
        headers.setdefault("cross-origin-opener-policy", "same-origin")
    # Everything but static files may be about a patient; and an old script does not fit a new page.
    headers.setdefault("cache-control", "no-cache" if "etag" in headers else "no-store")
    if headers.get("allow") == "GET":
        headers["allow"] = "GET, HEAD"


def _authorizations(scope: Scope) -> list[str]:
    """Return the ``Authorization`` headers, or the tokens in a WebSocket's subprotocols, for browsers."""
    offered = scope.get("subprotocols", ())
    return [value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"] or [
        f"Bearer {each.removeprefix(TOKEN_PROTOCOL)}" for each in offered if each.startswith(TOKEN_PROTOCOL)
    ]
