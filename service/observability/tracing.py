"""Which call is being served, for the log lines written inside it; and its trace, where traces are kept.

``service.observability.otel`` keeps them, of an optional extra, imported only when traces have somewhere to go. Without
it a client's own trace id (W3C Trace Context) still stands in the logs.
"""

import contextlib
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import TypeVar

from service.observability.stage_times import StageTimes

# W3C Trace Context, section 3.2.2: version, trace id, parent id, flags; an id of zeros is none.
TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")


class Call:
    """One call while it is served; this one leaves no trace."""

    traceparent = ""  # to be answered, W3C; empty where no trace is kept

    def __init__(self, request_id: str, trace_id: str = "") -> None:
        self.request_id = request_id
        self.trace_id = trace_id  # 32 hex digits; empty where there is none

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers that name the call in an HTTP answer."""
        headers = [(b"x-request-id", self.request_id.encode())]
        return [*headers, (b"traceparent", self.traceparent.encode())] if self.traceparent else headers

    def ended(self, attributes: Mapping[str, str | int], *, failed: bool, name: str | None = None) -> None:
        """Say how the call ended, and by which name it is better known by now."""


current: ContextVar[Call | None] = ContextVar("call", default=None)
AnyCall = TypeVar("AnyCall", bound=Call)


@contextmanager
def as_current(call: AnyCall) -> Iterator[AnyCall]:
    """Make ``call`` the one that is served inside the block, and in every task that begins there."""
    token = current.set(call)
    try:
        yield call
    finally:
        current.reset(token)


class Tracing:
    """Names the calls that are served, and keeps no traces."""

    def call(
        self, name: str, request_id: str, headers: Mapping[str, str | bytes], *, stream: bool = False
    ) -> AbstractContextManager[Call]:
        """Serve one call inside the block.

        Args:
            name: what is called, the same for every request: no path or parameter of a client.
            request_id: stands in every log line of the call.
            headers: of the request, or gRPC metadata; names in lower case.
            stream: whether many frames come in it. They are traces of their own then, linked to the call's.

        """
        given = TRACEPARENT.fullmatch(str(headers.get("traceparent", "")))
        return as_current(Call(request_id, given[1] if given else ""))

    def frame(self, times: StageTimes) -> AbstractContextManager[None]:
        """Work on one frame of the current call inside the block, and keep its stages."""
        return contextlib.nullcontext()


@asynccontextmanager
async def started(endpoint: str | None) -> AsyncIterator[Tracing]:
    """Trace inside the block; to an OTLP receiver if there is one.

    Raises:
        ModuleNotFoundError: there is one, but the extra ``otel`` is not installed.

    """
    if endpoint is None:
        yield Tracing()
        return
    from service.observability import otel

    async with otel.exporting(endpoint) as tracing:
        yield tracing
