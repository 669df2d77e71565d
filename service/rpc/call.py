"""What every gRPC call has: its time, its count and its line in the log, and its error as a status."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from pranet_client.errors import ERROR_METADATA_KEY
from service.errors import ClientLeft, DeadlineExceeded, InternalError, ServiceError
from service.observability.access_log import request_id_from
from service.observability.tracing import Call
from service.runtime import Service

Context = grpc.aio.ServicerContext[Any, Any]
Answer = TypeVar("Answer", bound=Message | None)

STREAMS = frozenset({"SegmentStream", "ModelStreamInfer"})  # last for minutes, so that metrics keep them apart
FAILURES = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)  # of the service
EARLY_SECONDS = 0.1  # that a client may give up before its deadline by our clock, which starts when the call arrives

log = logging.getLogger("pranet.access")


def given_request_id(context: Context) -> str:
    """Return the request id that the client's metadata name, or nothing."""
    return str(dict(context.invocation_metadata() or ()).get("x-request-id", ""))


def authorizations(metadata: Iterable[tuple[str, str | bytes]] | None) -> list[str]:
    """Return what a call's metadata show to be let in with; more than one entry is for the gate to judge."""
    return [str(value) for name, value in metadata or () if name == "authorization"]


def seconds_left(context: Context, limit_ms: int) -> float:
    """Return the time that a call may take: its deadline, at most ``limit_ms``."""
    remaining = context.time_remaining()
    return limit_ms / 1e3 if remaining is None else min(remaining, limit_ms / 1e3)


def ending(context: Context) -> type[ServiceError]:
    """Return why a call was cancelled, of which gRPC says nothing: by its deadline, or by its client."""
    left = context.time_remaining()
    return ClientLeft if left is None or left > EARLY_SECONDS else DeadlineExceeded


async def observed(
    service: Service, context: Context, request_id: str, method: str, answer: Callable[[], Awaitable[Answer]]
) -> Answer:
    """Run one call, ``method`` of the full name; turn its error into a status, and trace, count and log it."""
    metadata = dict(context.invocation_metadata() or ())
    stream = _short(method) in STREAMS
    with service.tracing.call(method, request_id, metadata, stream=stream) as call:
        return await _counted(service, context, call, method, answer)


async def _counted(
    service: Service, context: Context, call: Call, method: str, answer: Callable[[], Awaitable[Answer]]
) -> Answer:
    request_id, began, code = call.request_id, time.perf_counter(), grpc.StatusCode.CANCELLED
    transport = "grpc-stream" if _short(method) in STREAMS else "grpc"
    try:
        if call.traceparent:
            await context.send_initial_metadata([("traceparent", call.traceparent)])
        result = await answer()
        code = grpc.StatusCode.OK
        return result
    except (asyncio.CancelledError, ClientLeft):
        error = ending(context)
        code = error.grpc
        service.metrics.rejected.labels(error.slug).inc()
        raise asyncio.CancelledError from None  # nobody is there to be told
    except ServiceError as error:
        code = error.grpc
        service.metrics.rejected.labels(error.slug).inc()
        await abort(context, error, request_id)
    except Exception:
        code = InternalError.grpc
        service.metrics.rejected.labels(InternalError.slug).inc()
        log.exception("request %s failed", request_id)
        await abort(context, InternalError("request"), request_id)
    finally:
        call.ended({"rpc.grpc.status_code": code.value[0]}, failed=code in FAILURES)
        seconds = time.perf_counter() - began
        service.metrics.requests.labels(transport, code.name).inc()
        service.metrics.request_duration.labels(transport).observe(seconds)
        log.info("grpc %s %s %.1f ms id=%s", _short(method), code.name, seconds * 1e3, request_id)
    raise AssertionError("abort always raises")


async def write(context: Context, message: Message) -> None:
    """Send one answer of a stream.

    Raises:
        ClientLeft: nobody is there to take it.

    """
    try:
        await context.write(message)
    except grpc.aio.InternalError as error:  # gRPC's way to say so, where it does not cancel this call first
        raise ClientLeft("the client left while its answer was written") from error


async def abort(context: Context, error: ServiceError, request_id: str = "") -> None:
    """End a call with the status of an error, whose cause goes into the trailing metadata."""
    metadata = [(ERROR_METADATA_KEY, error.slug), ("x-request-id", request_id or request_id_from(""))]
    if error.retry_after is not None:
        metadata.append(("retry-after", str(error.retry_after)))
    await context.abort(error.grpc, error.detail, tuple(metadata))


def _short(method: str) -> str:
    return method.rpartition("/")[2]
