"""Every call of every transport (REST, WebSocket, gRPC) enters here.

    async with calls.enter(call):      authenticate, check readiness, set the deadline, start a trace
        ...                            the transport: decode the request, segment, encode the answer
                                       at the end, however it came: count, time and log the call, end the trace

An exception inside the block leaves it as a ``ServiceError``, which the transport encodes in its own format.
"""

import asyncio
import contextlib
import logging
import math
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from opentelemetry import context
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, StatusCode, set_span_in_context

from service.access.authentication import Authentication
from service.clients.awaited import NOBODY, READER, Awaited
from service.clients.connections import Source
from service.errors import ClientLeft, DeadlineExceeded, Draining, InternalError, InvalidRequest, ServiceError, causes
from service.observability import logs
from service.observability.metrics import Metrics
from service.observability.tracing import STREAM, W3C, Tracing
from service.readiness import Readiness

REQUEST_ID = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)  # safe to echo into headers and logs
MILLISECONDS = re.compile(r"0*([1-9][0-9]*)")
MOST_DIGITS = 18  # longer timeouts exceed every limit anyway; int() refuses thousands of digits
REPORTED_METHODS = {"WS": "GET", "HTTP": "_OTHER"}  # of WebSockets and unknown methods (OpenTelemetry, HTTP spans)
UNKNOWN = "-"  # name of a call whose route or method does not exist
CUT_OFF = "the service stopped before the answer was ready; send the request again"
LATE_SECONDS = 0.25  # the work itself watches the deadline; a call that does not is cancelled this much later

log = logging.getLogger("pranet.access")


@dataclass(frozen=True)
class Transport:
    """How metrics, logs and traces describe the calls of one transport."""

    name: str  # label of the metrics
    attribute: str  # span attribute that holds the status code
    ok: str  # status code of success
    code: Callable[[type[ServiceError]], str]  # status code of an error
    failures: tuple[str, ...]  # prefixes of the status codes that mean a fault of the service
    number: Callable[[str], int] = int  # a status code as the value of ``attribute``


@dataclass(eq=False, kw_only=True)
class Call:
    """One call in progress. The transport fills the fields above the blank line, ``Calls.enter`` the others."""

    transport: Transport
    name: str  # route or method, for traces and logs; never the raw path, which may hold a patient's name
    headers: Mapping[str, Any]  # HTTP headers or gRPC metadata; names in lower case
    authorizations: Sequence[str] = ()  # values of the Authorization headers
    timeout: str | float | None = None  # requested by the client: milliseconds as text, or seconds
    is_open: bool = False  # needs no token
    is_work: bool = True  # refused unless the service is ready
    is_stream: bool = False  # carries many frames
    is_quiet: bool = False  # polled all the time: not traced, and logged at level DEBUG
    connection: Hashable = None  # key of the one that the answer takes; None if it is not known
    fault: ServiceError | None = None  # raised after authentication, so that strangers do not see it
    cancelled_by: Callable[[], type[ServiceError]] = lambda: ClientLeft  # the cause if the transport cancels the call

    request_id: str = ""  # the client's, or a new one
    span: Span = INVALID_SPAN
    traceparent: str = ""  # header of the answer (W3C Trace Context); empty without tracing
    arrived: float = 0.0  # loop time, seconds
    deadline: float = 0.0  # loop time, seconds
    code: str = ""  # status code of the answer, once there is one
    awaited: Awaited = NOBODY
    is_answered: bool = False  # the transport has the answer, and may still send it
    is_cut_off: bool = False  # by the end of the service
    _asked: float = 0.0  # requested timeout, seconds
    _timeout: asyncio.Timeout = field(default_factory=lambda: asyncio.Timeout(None))

    @property
    def answer_headers(self) -> dict[str, str]:
        """Return the headers that tell the client which call this was."""
        return {"x-request-id": self.request_id} | ({"traceparent": self.traceparent} if self.traceparent else {})

    def set_deadline(self, limit: float, *, of_parts: bool = False) -> float:
        """Set and return the deadline, at most ``limit`` seconds from arrival; with ``of_parts``, not of the call."""
        self.deadline = self.arrived + min(self._asked, limit)
        if self._timeout.when() is not None:
            self._timeout.reschedule(None if of_parts else self.deadline + LATE_SECONDS)
        return self.deadline

    def remove_deadline(self) -> None:
        """Let the call run until its client ends it, as a stream does."""
        self._timeout.reschedule(None)

    def cut_off(self) -> None:
        """End the call with ``Draining``, unless it ends already."""
        if self.is_answered:
            return
        if not self._timeout.expired():
            self.is_cut_off = True
            self._timeout.reschedule(0.0)

    def set_request_id(self, request_id: str) -> None:
        """Use the request id from the message body, if it is safe to echo."""
        if REQUEST_ID.fullmatch(request_id):
            self.request_id = request_id
            self.span.set_attribute("pranet.request_id", request_id)
            logs.request_id.set(request_id)


_current: ContextVar[Call] = ContextVar("call")


def current() -> Call:
    """Return the call that the current task serves.

    Raises:
        LookupError: the task serves no call.

    """
    return _current.get()


class Calls:
    """Authenticates, times, traces, counts and logs every call."""

    def __init__(
        self,
        authentication: Authentication,
        readiness: Readiness,
        metrics: Metrics,
        traces: Tracing,
        *,
        timeout_seconds: float,
    ) -> None:
        self._authentication = authentication
        self._readiness = readiness
        self._metrics = metrics
        self._tracing = traces
        self._untraced = Tracing()
        self._timeout_seconds = timeout_seconds  # default; ``Call.set_deadline`` changes it for one call
        self.unanswered: dict[asyncio.Task[Any], Call] = {}  # work; each task ends once its answer or error is sent
        self.sources: list[Source] = []  # of the connections, one for each server

    @contextlib.asynccontextmanager
    async def enter(self, call: Call) -> AsyncIterator[Call]:
        """Serve one call inside the block.

        Raises:
            Unauthenticated: the call has no valid token.
            RateLimited, TooManyAtOnce: the token has reached one of its limits.
            NotReady, Draining: the service accepts no new work, or ``Call.cut_off`` ended it.
            DeadlineExceeded: the block did not end before the deadline.
            InternalError: the block raised another exception, which is logged with its traceback.
            ServiceError: the block raised it.

        """
        began = time.perf_counter()
        self._begin(call)
        failure: type[ServiceError] | None = None
        try:
            with self._admitted(call):
                if call.fault is not None:
                    raise call.fault
                call._asked = _seconds(call.timeout)
                if call.is_work and not self._readiness.ready:
                    self._readiness.check()  # raises the reason
                async with asyncio.timeout_at(call.set_deadline(self._timeout_seconds) + LATE_SECONDS) as call._timeout:
                    yield call
        except asyncio.CancelledError:
            failure = call.cancelled_by()
            raise
        except ClientLeft:
            failure = call.cancelled_by()
            raise
        except ServiceError as error:
            failure = type(error)
            raise
        except Exception as error:
            if isinstance(error, TimeoutError) and call._timeout.expired():
                late = Draining(CUT_OFF) if call.is_cut_off else DeadlineExceeded()
                failure = type(late)
                raise late from None
            failure = InternalError
            log.exception("request %s failed", call.request_id)
            raise InternalError("request") from None
        finally:
            if failure is not None:
                self.reject(failure)
            call.code = call.code or (call.transport.code(failure) if failure else call.transport.ok)
            self._finish(call, time.perf_counter() - began)

    def _begin(self, call: Call) -> None:
        """Assign the request id and start the trace. Each call has its own task, so nothing has to be reset."""
        call.arrived = asyncio.get_running_loop().time()
        if (call.is_work or call.is_stream) and (task := asyncio.current_task()):
            self.unanswered[task] = call
            task.add_done_callback(self.unanswered.pop)
        call.request_id = request_id_from(str(call.headers.get("x-request-id", "")))
        traces = self._untraced if call.is_quiet else self._tracing
        caller = {"traceparent": str(call.headers.get("traceparent", ""))}  # spans would tell the client's tracestate
        call.span = traces.tracer.start_span(
            call.name, W3C.extract(caller), SpanKind.SERVER, attributes={"pranet.request_id": call.request_id}
        )
        if traces.keeps:
            call.traceparent = traces.traceparent(call.span)
        _current.set(call)
        logs.request_id.set(call.request_id)
        inside = set_span_in_context(call.span)
        context.attach(context.set_value(STREAM, True, inside) if call.is_stream else inside)

    def initialise_series(self, *transports: Transport) -> None:
        """Create the series of these transports at 0, so that Prometheus sees their first increase."""
        for transport in transports:
            self._metrics.request_duration.labels(transport.name)
            for code in {transport.ok, *map(transport.code, causes())}:
                self._metrics.requests.labels(transport.name, code)

    def reject(self, error: ServiceError | type[ServiceError]) -> None:
        """Count an error, of a call or of one request in a stream."""
        self._metrics.reject(error)

    def refuse(self, transport: Transport, error: ServiceError) -> str:
        """Count and log a request that is refused before it becomes a call; return the request id for its answer."""
        call = Call(transport=transport, name=UNKNOWN, headers={}, request_id=request_id_from(""))
        self.reject(error)
        call.code = transport.code(type(error))
        self._finish(call, None)
        return call.request_id

    def _admitted(self, call: Call) -> contextlib.AbstractContextManager[None]:
        if call.is_open or not self._authentication.required:
            return contextlib.nullcontext()
        return self._authentication.admitted(call.authorizations)

    def _finish(self, call: Call, seconds: float | None) -> None:
        """Count, time and log a finished call, and end its span; ``seconds`` is None if it was never timed."""
        transport, code = call.transport, call.code
        call.is_answered, call.awaited = True, Awaited(READER, time.monotonic())
        call._timeout = asyncio.Timeout(None)  # the other holds the task, and its context the call: a reference cycle
        self._metrics.requests.labels(transport.name, code).inc()
        if seconds is not None:
            self._metrics.request_duration.labels(transport.name).observe(seconds)
        if call.span.is_recording():
            call.span.update_name(call.name.removesuffix(f" {UNKNOWN}"))
            call.span.set_attribute(transport.attribute, transport.number(code))
            method, _, route = call.name.partition(" ")
            if route:
                call.span.set_attribute("http.request.method", REPORTED_METHODS.get(method, method))
            if route not in ("", UNKNOWN):  # never the path itself, which may hold a patient's name
                call.span.set_attribute("http.route", route)
            if code.startswith(transport.failures):
                call.span.set_status(StatusCode.ERROR)
        call.span.end()
        level = logging.DEBUG if call.is_quiet else logging.INFO
        took = (seconds or 0.0) * 1e3
        fields = {"transport": transport.name, "call": call.name, "code": code, "duration_ms": round(took, 1)}
        text = "%s %s %s %.1f ms id=%s"
        log.log(level, text, transport.name, call.name, code, took, call.request_id, extra={"fields": fields})


def request_id_from(given: str) -> str:
    """Return the client's request id if it is safe to echo, else a new one."""
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _seconds(timeout: str | float | None) -> float:
    """Return the timeout that a client asks for, in seconds; infinity if it asks for none.

    Raises:
        InvalidRequest: a text is not a whole number of milliseconds above 0.

    """
    if not isinstance(timeout, str):
        return math.inf if timeout is None else timeout
    if not (asked := MILLISECONDS.fullmatch(timeout)):
        raise InvalidRequest(f"X-Request-Timeout-Ms is {timeout[:32]!r}; send a whole number of milliseconds above 0")
    return int(asked[1][:MOST_DIGITS]) / 1e3
