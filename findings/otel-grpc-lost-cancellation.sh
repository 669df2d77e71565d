#!/usr/bin/env bash
# A call that its client gives up, in a channel with OpenTelemetry's interceptors for grpc.aio.
#
# Guess:   tracing changes nothing of the call: a cancelled one is cancelled on the server, too, and leaves a span that
#          says so.
# Truth:   the client gets its CancelledError or TimeoutError, but the server is never told: its handler runs to the
#          end, and no span is exported. It is so for asyncio.wait_for, for a cancelled task, and for call.cancel(). An
#          interceptor that only passes the call on has no such effect. With timeout= in the call, the server is told,
#          and the span says DEADLINE_EXCEEDED.
# Versions: opentelemetry-instrumentation-grpc 0.66b2, grpcio 1.85.1
# Matters: of all calls, those that took too long are missing in the traces, and the server goes on computing pictures
#          that nobody waits for, so that the next calls take too long as well. docs/grpc.md says to give a timeout.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q \
  grpcio==1.85.1 opentelemetry-instrumentation-grpc==0.66b2 opentelemetry-sdk==1.45.2
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import gc
import sys
from importlib.metadata import version

import grpc
from opentelemetry.instrumentation.grpc import aio_client_interceptors
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

SOON, WORK = 0.5, 2.0  # seconds until a client gives up, and that a call takes
exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
CHANNELS = {
    "no interceptor": lambda: None,
    "one that passes on": lambda: [PassOn()],
    "OpenTelemetry's": lambda: aio_client_interceptors(tracer_provider=provider),
}


class PassOn(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation, details, request):
        return await continuation(details, request)


async def awaited(method, **options):
    return await method(b"", **options)


async def wait_for(method):
    await asyncio.wait_for(awaited(method), SOON)


async def task_cancel(method):
    task = asyncio.create_task(awaited(method))
    await asyncio.sleep(SOON)
    task.cancel()
    await task


async def call_cancel(method):
    call = method(b"")
    await asyncio.sleep(SOON)
    call.cancel()
    await call


async def deadline(method):
    await awaited(method, timeout=SOON)


async def given_up(interceptors, how):
    """Return what the client gets, how the handler ends, and the status codes of the spans."""
    ended = []

    async def work(request, context):
        try:
            await asyncio.sleep(WORK)
            ended.append("ran to its end")
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return b""

    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(work)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Test", {"Work": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    exporter.clear()
    got = ""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", interceptors=interceptors) as channel:
        try:
            await how(channel.unary_unary("/test.Test/Work"))
        except (asyncio.CancelledError, TimeoutError, grpc.aio.AioRpcError) as error:
            got = type(error).__name__
        await asyncio.sleep(WORK + 1)
    await server.stop(None)
    gc.collect()
    return got, *ended, [span.attributes["rpc.grpc.status_code"] for span in exporter.get_finished_spans()]


print(*(f"{name} {version(name)}" for name in ("opentelemetry-instrumentation-grpc", "grpcio")))
found = {}
for name, interceptors in CHANNELS.items():
    for how in (wait_for, task_cancel, call_cancel, deadline):
        found[name, how] = got, ended, codes = asyncio.run(given_up(interceptors(), how))
        print(f"{name}, {how.__name__}: the client gets {got}, the handler {ended}, spans: {codes}")
for (name, how), (_, *seen) in found.items():
    traced = name == "OpenTelemetry's"
    lost = traced and how is not deadline
    if seen != ["ran to its end" if lost else "cancelled", [4] if traced and not lost else []]:
        sys.exit(f"{name}, {how.__name__}: it was otherwise")
PYTHON
