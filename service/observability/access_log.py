"""ASGI middleware around every HTTP request: its id, its duration, its line in the log, its last resort."""

import json
import logging
import re
import time
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import InternalError
from service.observability.metrics import Metrics
from service.observability.tracing import Call, Tracing

REQUEST_ID_HEADER = "x-request-id"
REQUEST_ID = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)  # what may be echoed into headers and logs
UNTRACED = Tracing()
QUIET_PATHS = frozenset({"/livez", "/readyz", "/metrics"})  # polled for ever

log = logging.getLogger("pranet.access")


def request_id_from(given: str) -> str:
    """Return the client's request id if it can be echoed, else a new one."""
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


class Observed:
    """Wraps an ASGI application; ``scope["state"]["request_id"]`` names the request inside."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: Tracing) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        request_id = request_id_from(headers.get(REQUEST_ID_HEADER, ""))
        scope.setdefault("state", {})["request_id"] = request_id
        tracing = UNTRACED if scope["path"] in QUIET_PATHS else self._tracing
        with tracing.call("HTTP", request_id, headers) as call:
            await self._serve(scope, receive, send, call)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, call: Call) -> None:
        began, status = time.perf_counter(), 0
        named = call.headers()

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *named]
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        except Exception:
            log.exception("request %s failed", call.request_id)
            if not status:
                self._metrics.rejected.labels(InternalError.slug).inc()
                await _send_internal_error(send_named, call.request_id)
        finally:
            call.ended({"http.response.status_code": status}, failed=not 0 < status < 500, name=_route(scope))
            self._record(scope, call.request_id, status, time.perf_counter() - began)

    def _record(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        self._metrics.requests.labels("rest", str(status)).inc()
        self._metrics.request_duration.labels("rest").observe(seconds)
        level = logging.DEBUG if scope["path"] in QUIET_PATHS else logging.INFO
        log.log(level, "%s %s %d %.1f ms id=%s", scope["method"], _served(scope), status, seconds * 1e3, request_id)


def _route(scope: Scope) -> str | None:
    """Name what was asked for, if it is served; paths and methods of a client's own making name nothing."""
    route = scope.get("route")
    methods = getattr(route, "methods", None) or ()
    return f"{scope['method']} {getattr(route, 'path', '')}" if scope["method"] in methods else None


def _served(scope: Scope) -> str:
    """Return the path of the route for the log; one of the client's own making may name a patient."""
    return f"{scope.get('root_path', '')}{getattr(scope.get('route'), 'path', '-')}"


async def _send_internal_error(send: Send, request_id: str) -> None:
    body = json.dumps(InternalError("request").problem(request_id)).encode()
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": InternalError.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
