"""OpenTelemetry traces, sent to an OTLP receiver.

They hold times and outcomes, never data of the client.

Without a receiver nothing is recorded and the SDK is not imported. The API's no-op tracer still passes the client's
trace id (W3C Trace Context) on to the logs. With a receiver, the SDK's environment variables apply: service name and
resource, sampler, batching, headers, certificates.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from opentelemetry import context, trace
from opentelemetry.trace import Link, Span, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service import __version__
from service.errors import ServiceError
from service.observability.stage_times import STAGES, StageTimes
from service.observability.trace_receiver import GRPC, TraceReceiver

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

FLUSH_SECONDS = 3.0  # how long the shutdown waits for the receiver to accept the last spans
STREAM = "pranet.stream"  # key in the context of a call: it is a stream
W3C = TraceContextTextMapPropagator()


class Tracing:
    """Records a span for every call, with a child span for every stage of its frame.

    A stream may last for hours, too long for one trace. Each of its frames is therefore a separate trace, linked to the
    span of the call.
    """

    def __init__(self, tracer: Tracer | None = None) -> None:
        self.keeps = tracer is not None
        self.tracer = tracer or trace.NoOpTracer()

    def traceparent(self, span: Span) -> str:
        """Return the ``traceparent`` header that tells the client the span of its call."""
        headers: dict[str, str] = {}
        W3C.inject(headers, set_span_in_context(span))
        return headers["traceparent"]

    def record(self, made: float, times: StageTimes, failure: BaseException | None) -> None:
        """Add a child span for each stage of one frame to the trace of the current call.

        Args:
            made: when the frame was created, ``time.perf_counter`` seconds.
            times: begin and end of each stage, by the same clock.
            failure: the exception that ended it, if any.

        """
        now = time.time_ns()
        shift = now - time.perf_counter_ns()  # offset from ``perf_counter`` to wall-clock time
        frame = call = trace.get_current_span()
        stream = bool(context.get_value(STREAM))
        if stream:
            links = [Link(call.get_span_context())]
            frame = self.tracer.start_span("frame", context.Context(), links=links, start_time=shift + _ns(made))
        if not frame.is_recording():  # not selected by the sampler
            return
        for stage in STAGES:
            if stage in times:
                began, ended = times[stage]
                span = self.tracer.start_span(stage, set_span_in_context(frame), start_time=shift + _ns(began))
                span.end(shift + _ns(ended))
        if failure is not None:
            kind = failure.slug if isinstance(failure, ServiceError) else type(failure).__name__
            frame.set_attribute("error.type", kind)
        if stream:
            if failure is not None:
                frame.set_status(StatusCode.ERROR)
            frame.end(now)


def current_trace_id() -> str:
    """Return the trace id of the current call, 32 hex digits; empty if it has none."""
    identity = trace.get_current_span().get_span_context()
    return f"{identity.trace_id:032x}" if identity.is_valid else ""


@asynccontextmanager
async def started(receiver: TraceReceiver | None) -> AsyncIterator[Tracing]:
    """Record traces inside the block and send them to an OTLP receiver; without one, record nothing.

    Raises:
        ModuleNotFoundError: a receiver is given, but the extra ``otel`` is not installed.

    """
    if receiver is None:
        yield Tracing()
        return
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    exporter = _exporter(receiver)
    named = Resource({"service.name": "pranet", "service.version": __version__})
    provider = TracerProvider(resource=named.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield Tracing(provider.get_tracer("pranet", __version__))
    finally:
        limit = threading.Timer(FLUSH_SECONDS, exporter.shutdown)  # the SDK itself would wait for up to 30 s
        limit.start()
        await asyncio.to_thread(provider.shutdown)
        limit.cancel()


def _exporter(receiver: TraceReceiver) -> "SpanExporter":
    if receiver.protocol == GRPC:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter(receiver.url)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

    return HttpExporter(receiver.url)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
