"""Traces by OpenTelemetry, sent to an OTLP receiver over gRPC. They never hold what a client sent, only how it fared.

Without a receiver nothing is kept: the API's no-op tracer passes a client's own trace id on to the logs (W3C Trace
Context), and the SDK is not imported. With one, the SDK's own environment variables hold: service name and resource,
sampler, batches, headers, certificates.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from opentelemetry import context, trace
from opentelemetry.trace import Link, Span, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service import __version__
from service.errors import ServiceError
from service.observability.stage_times import STAGES, StageTimes

FLUSH_SECONDS = 3.0  # that the end of the service waits for a receiver to take the last spans
STREAM = "pranet.stream"  # in the context of a call in which many frames come
W3C = TraceContextTextMapPropagator()


class Tracing:
    """A span for every call, and under it one for every stage of its frame.

    A stream can last for hours, longer than a trace may: its frames are traces of their own, linked to the call's.
    """

    def __init__(self, tracer: Tracer | None = None) -> None:
        self.keeps = tracer is not None
        self.tracer = tracer or trace.NoOpTracer()

    def traceparent(self, span: Span) -> str:
        """Return the header that names a call's span to its client."""
        headers: dict[str, str] = {}
        W3C.inject(headers, set_span_in_context(span))
        return headers["traceparent"]

    def record(self, made: float, times: StageTimes, failure: BaseException | None) -> None:
        """Keep the stages of one frame of the current call, which was made at ``made`` (``time.perf_counter``)."""
        now = time.time_ns()
        shift = now - time.perf_counter_ns()  # from the clock of the stages to that of traces
        frame = call = trace.get_current_span()
        stream = bool(context.get_value(STREAM))
        if stream:
            links = [Link(call.get_span_context())]
            frame = self.tracer.start_span("frame", context.Context(), links=links, start_time=shift + _ns(made))
        if not frame.is_recording():  # the sampler passed it over
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
    """Return the trace id of the current call, 32 hex digits; empty where there is none."""
    identity = trace.get_current_span().get_span_context()
    return f"{identity.trace_id:032x}" if identity.is_valid else ""


@asynccontextmanager
async def started(endpoint: str | None) -> AsyncIterator[Tracing]:
    """Trace inside the block, to the OTLP receiver at ``http(s)://host:port`` if there is one.

    Raises:
        ModuleNotFoundError: there is one, but the extra ``otel`` is not installed.

    """
    if endpoint is None:
        yield Tracing()
        return
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    exporter = OTLPSpanExporter(endpoint)
    named = Resource({"service.name": "pranet", "service.version": __version__})
    provider = TracerProvider(resource=named.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield Tracing(provider.get_tracer("pranet", __version__))
    finally:
        giving_up = threading.Timer(FLUSH_SECONDS, exporter.shutdown)  # the SDK would wait for 30 s
        giving_up.start()
        await asyncio.to_thread(provider.shutdown)
        giving_up.cancel()


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
