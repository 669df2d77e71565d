"""Traces by OpenTelemetry, sent to an OTLP receiver over gRPC. What a client sent never goes in, only how it fared.

The SDK's own environment variables hold: service name and resource, sampler, batches, headers, certificates.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service import __version__
from service.errors import ServiceError
from service.observability.stage_times import STAGES, StageTimes
from service.observability.tracing import Call, Tracing, as_current, current

FLUSH_SECONDS = 3.0  # that the end of the service waits for a receiver to take the last spans
W3C = TraceContextTextMapPropagator()


class TracedCall(Call):
    """One call while it is served, with its span."""

    def __init__(self, request_id: str, span: Span, stream: bool) -> None:
        super().__init__(request_id, f"{span.get_span_context().trace_id:032x}")
        self.span = span
        self.stream = stream
        answered: dict[str, str] = {}
        W3C.inject(answered, set_span_in_context(span))
        self.traceparent = answered["traceparent"]

    def ended(self, attributes: Mapping[str, str | int], *, failed: bool, name: str | None = None) -> None:
        """Say how the call ended, and by which name it is better known by now."""
        self.span.set_attributes(attributes)
        if name:
            self.span.update_name(name)
        if failed:
            self.span.set_status(StatusCode.ERROR)


class OpenTelemetry(Tracing):
    """Keeps a span for every call, and under it one for every stage of its frame."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    @contextmanager
    def call(
        self, name: str, request_id: str, headers: Mapping[str, str | bytes], *, stream: bool = False
    ) -> Iterator[Call]:
        """Serve one call inside the block, in the client's trace if it has one."""
        span = self._tracer.start_span(
            name, W3C.extract(headers), SpanKind.SERVER, attributes={"pranet.request_id": request_id}
        )
        try:
            with as_current(TracedCall(request_id, span, stream)) as call:
                yield call
        finally:
            span.end()

    @contextmanager
    def frame(self, times: StageTimes) -> Iterator[None]:
        """Work on one frame of the current call inside the block, and keep its stages."""
        failure: BaseException | None = None
        try:
            yield
        except BaseException as error:
            failure = error
            raise
        finally:
            call = current.get()
            if isinstance(call, TracedCall):
                self._record(call, times, failure)

    def _record(self, call: TracedCall, times: StageTimes, failure: BaseException | None) -> None:
        now = time.time_ns()
        shift = now - time.perf_counter_ns()  # between the clock of the stages and that of traces
        frame = call.span
        if call.stream:  # of which one can last for hours, longer than a trace may
            link = Link(call.span.get_span_context())
            frame = self._tracer.start_span("frame", Context(), links=[link], start_time=shift + _ns(times.made))
        if not frame.is_recording():  # the sampler passed it over
            return
        for stage in STAGES:
            if stage in times:
                began, seconds = times.began[stage], times[stage]
                span = self._tracer.start_span(stage, set_span_in_context(frame), start_time=shift + _ns(began))
                span.end(shift + _ns(began + seconds))
        if failure is not None:
            kind = failure.slug if isinstance(failure, ServiceError) else type(failure).__name__
            frame.set_attribute("error.type", kind)
        if call.stream:
            if failure is not None:
                frame.set_status(StatusCode.ERROR)
            frame.end(now)


@asynccontextmanager
async def exporting(endpoint: str) -> AsyncIterator[OpenTelemetry]:
    """Send traces to ``http(s)://host:port`` inside the block, and what is left at its end."""
    exporter = OTLPSpanExporter(endpoint)
    named = Resource({"service.name": "pranet", "service.version": __version__})
    provider = TracerProvider(resource=named.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield OpenTelemetry(provider.get_tracer("pranet", __version__))
    finally:
        giving_up = threading.Timer(FLUSH_SECONDS, exporter.shutdown)  # the SDK would wait for 30 s
        giving_up.start()
        await asyncio.to_thread(provider.shutdown)
        giving_up.cancel()


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
