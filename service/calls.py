"""The one way in for every call, whatever carries it: REST, WebSocket or gRPC.

    async with calls.enter(call):      authenticate, check readiness, set the deadline, begin a trace
        ...                            the transport's own: decode the request, segment, encode the answer
                                       count, time, log and end the trace, once, whatever ended the call

What the block raises leaves it as a ``ServiceError``, which the transport encodes in its own form.
"""

import asyncio
import contextlib
import logging
import math
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from opentelemetry import context
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, StatusCode, set_span_in_context

from service.access.authentication import Authentication
from service.errors import ClientLeft, DeadlineExceeded, InternalError, InvalidRequest, ServiceError
from service.observability import logs
from service.observability.metrics import Metrics
from service.observability.tracing import STREAM, W3C, Tracing
from service.readiness import Phase, Readiness

REQUEST_ID = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)  # what may be echoed into headers and logs
MILLISECONDS = re.compile(r"0*([1-9][0-9]*)")
MOST_DIGITS = 18  # more than any limit has; Python itself refuses to read thousands
UNKNOWN = "-"  # the name of what is no call
LATE_SECONDS = 0.25  # after the deadline, until a call ends whose work does not watch its deadline itself

log = logging.getLogger("pranet.access")


@dataclass(frozen=True)
class Transport:
    """What metrics, logs and traces call a transport, and how each of its calls ended."""

    name: str
    attribute: str  # of a span: how the call ended
    ok: str  # the code of a call that ended well
    code: Callable[[type[ServiceError]], str]  # that an error is told by
    failures: tuple[str, ...]  # beginnings of the codes by which the service itself failed
    number: Callable[[str], int] = int  # a code as a span's attribute


@dataclass(eq=False, kw_only=True)
class Call:
    """One call while it is served; what a transport knows of it, and what ``Calls.enter`` adds."""

    transport: Transport
    name: str  # of the route or method, for traces and logs: never a path or parameter of the client's own making
    headers: Mapping[str, Any]  # or gRPC metadata; names in lower case
    authorizations: Sequence[str] = ()  # values of the Authorization headers
    timeout: str | float | None = None  # that the client asks for: milliseconds as text, or seconds
    is_open: bool = False  # nobody needs a token
    is_work: bool = True  # refused unless the service is ready
    is_stream: bool = False  # many frames come in it
    is_quiet: bool = False  # polled for ever: no trace, and a log line of level DEBUG
    fault: ServiceError | None = None  # why it is refused, once its caller may know
    cancelled_by: Callable[[], type[ServiceError]] = lambda: ClientLeft  # why its client does not wait any more

    request_id: str = ""  # the client's, or a new one
    span: Span = INVALID_SPAN
    traceparent: str = ""  # to be answered (W3C Trace Context); empty where no trace is kept
    arrived: float = 0.0  # loop time, seconds
    deadline: float = 0.0  # loop time, seconds
    code: str = ""  # by which the call was answered, once it is
    _asked: float = 0.0  # seconds
    _timeout: asyncio.Timeout = field(default_factory=lambda: asyncio.Timeout(None))

    def set_deadline(self, limit: float) -> float:
        """Let the call take ``limit`` seconds from its arrival, or less where its client asked; return its deadline."""
        self.deadline = self.arrived + min(self._asked, limit)
        if self._timeout.when() is not None:
            self._timeout.reschedule(self.deadline + LATE_SECONDS)
        return self.deadline

    def remove_deadline(self) -> None:
        """Let the call last for as long as its client stays: it is a stream."""
        self._timeout.reschedule(None)

    def set_request_id(self, request_id: str) -> None:
        """Take the request id that the message itself gives, if it can be echoed."""
        if REQUEST_ID.fullmatch(request_id):
            self.request_id = request_id
            self.span.set_attribute("pranet.request_id", request_id)
            logs.request_id.set(request_id)


_current: ContextVar[Call] = ContextVar("call")


def current() -> Call:
    """Return the call that is served in this task.

    Raises:
        LookupError: none is.

    """
    return _current.get()


class Calls:
    """Lets calls in, and accounts for each of them."""

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
        self._timeout_seconds = timeout_seconds  # of a call, unless ``Call.set_deadline`` says otherwise

    @contextlib.asynccontextmanager
    async def enter(self, call: Call) -> AsyncIterator[Call]:
        """Serve one call inside the block.

        Raises:
            Unauthenticated: no valid token came.
            RateLimited, TooManyAtOnce: the token's limits are used up.
            NotReady, Draining: the service takes no new work.
            DeadlineExceeded: the block took longer than its deadline.
            InternalError: the block raised what is no ``ServiceError``; the log has it.
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
                if call.is_work and (self._readiness.phase is not Phase.SERVING or self._readiness.dead.is_set()):
                    self._readiness.check()  # says why not
                async with asyncio.timeout_at(call.set_deadline(self._timeout_seconds) + LATE_SECONDS) as call._timeout:
                    yield call
        except (asyncio.CancelledError, ClientLeft):
            failure = call.cancelled_by()
            raise
        except ServiceError as error:
            failure = type(error)
            raise
        except Exception as error:
            if isinstance(error, TimeoutError) and call._timeout.expired():
                failure = DeadlineExceeded
                raise DeadlineExceeded("the answer was not ready in time; retry, or allow more time") from None
            failure = InternalError
            log.exception("request %s failed", call.request_id)
            raise InternalError("request") from None
        finally:
            if failure is not None:
                self.reject(failure)
            call.code = call.code or (call.transport.code(failure) if failure else call.transport.ok)
            self._finish(call, time.perf_counter() - began)

    def _begin(self, call: Call) -> None:
        """Name the call, and begin its trace. Each call has a task of its own, so its context ends with it."""
        call.arrived = asyncio.get_running_loop().time()
        call.request_id = request_id_from(str(call.headers.get("x-request-id", "")))
        traces = self._untraced if call.is_quiet else self._tracing
        call.span = traces.tracer.start_span(
            call.name, W3C.extract(call.headers), SpanKind.SERVER, attributes={"pranet.request_id": call.request_id}
        )
        if traces.keeps:
            call.traceparent = traces.traceparent(call.span)
        _current.set(call)
        logs.request_id.set(call.request_id)
        inside = set_span_in_context(call.span)
        context.attach(context.set_value(STREAM, True, inside) if call.is_stream else inside)

    def reject(self, error: ServiceError | type[ServiceError]) -> None:
        """Count a call, or one request of the many in a stream, that was refused or failed."""
        self._metrics.rejected.labels(error.slug).inc()

    def refuse(self, transport: Transport, error: ServiceError) -> str:
        """Account for what is refused before it is a call; return the request id to answer it with."""
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
        """Count, time and log a call that ended, and end its span."""
        transport, code = call.transport, call.code
        self._metrics.requests.labels(transport.name, code).inc()
        if seconds is not None:
            self._metrics.request_duration.labels(transport.name).observe(seconds)
        if call.span.is_recording():
            call.span.update_name(call.name)
            call.span.set_attribute(transport.attribute, transport.number(code))
            if code.startswith(transport.failures):
                call.span.set_status(StatusCode.ERROR)
        call.span.end()
        level = logging.DEBUG if call.is_quiet else logging.INFO
        took = (seconds or 0.0) * 1e3
        log.log(level, "%s %s %s %.1f ms id=%s", transport.name, call.name, code, took, call.request_id)


def request_id_from(given: str) -> str:
    """Return the client's request id if it can be echoed, else a new one."""
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _seconds(timeout: str | float | None) -> float:
    """Return the time that a client asks for, in seconds.

    Raises:
        InvalidRequest: it is no whole number of milliseconds above 0.

    """
    if not isinstance(timeout, str):
        return math.inf if timeout is None else timeout
    if not (asked := MILLISECONDS.fullmatch(timeout)):
        raise InvalidRequest(f"X-Request-Timeout-Ms is {timeout[:32]!r}; send a whole number of milliseconds above 0")
    return int(asked[1][:MOST_DIGITS]) / 1e3
