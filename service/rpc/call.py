"""A gRPC call as one of ``service.calls``: its metadata and deadline, and its error as a status."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from google.protobuf.message import Message

from pranet_client.errors import ERROR_METADATA_KEY
from service.calls import Call, Calls, Transport
from service.errors import ClientLeft, DeadlineExceeded, ServiceError

Context = grpc.aio.ServicerContext[Any, Any]

WORK = frozenset({"Segment", "SegmentStream", "ModelInfer", "ModelStreamInfer"})
STREAMS = frozenset({"SegmentStream", "ModelStreamInfer"})  # last for minutes, so that metrics keep them apart
EARLY_SECONDS = 0.1  # that a client may give up before its deadline by our clock, which starts when the call arrives

UNARY, STREAM = (
    Transport(
        name,
        "rpc.grpc.status_code",
        ok="OK",
        code=lambda error: error.grpc.name,
        failures=("INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED"),
        number=lambda code: grpc.StatusCode[code].value[0],
    )
    for name in ("grpc", "grpc-stream")
)


def call_of(context: Context, method: str, *, is_open: bool = False) -> Call:
    """Describe a call of ``method``, its full name; that of an unknown one, which may name a patient, is ``"-"``."""
    name = method.removeprefix("/")
    short = name.rpartition("/")[2]
    metadata = context.invocation_metadata() or ()
    return Call(
        transport=STREAM if short in STREAMS else UNARY,
        name=name,
        headers=dict(metadata),
        authorizations=authorizations(metadata),
        timeout=context.time_remaining(),
        is_open=is_open,
        is_work=short in WORK,
        is_stream=short in STREAMS,
        is_quiet=is_open,
        cancelled_by=lambda: _ending(context),
    )


@contextlib.asynccontextmanager
async def entered(calls: Calls, call: Call, context: Context) -> AsyncIterator[Call]:
    """Serve a call inside the block; end it with the status of its error.

    Raises:
        AbortError: gRPC's own, of a call that ended with a status.
        CancelledError: the client left.

    """
    try:
        async with calls.enter(call):
            if call.traceparent:
                await context.send_initial_metadata([("traceparent", call.traceparent)])
            if call.is_stream:
                call.remove_deadline()
            yield call
    except ClientLeft:
        raise asyncio.CancelledError from None  # nobody is there to be told
    except ServiceError as error:
        await abort(context, error, call.request_id)


def authorizations(metadata: Iterable[tuple[str, str | bytes]]) -> list[str]:
    """Return the values of a call's ``authorization`` metadata; several are for the authentication to judge."""
    return [str(value) for name, value in metadata if name == "authorization"]


async def write(context: Context, message: Message) -> None:
    """Send one answer of a stream.

    Raises:
        ClientLeft: nobody is there to take it.

    """
    try:
        await context.write(message)
    except grpc.aio.InternalError as error:  # gRPC's way to say so, where it does not cancel this call first
        raise ClientLeft("the client left while its answer was written") from error


async def abort(context: Context, error: ServiceError, request_id: str) -> None:
    """End a call with the status of an error, whose cause goes into the trailing metadata."""
    metadata = [(ERROR_METADATA_KEY, error.slug), ("x-request-id", request_id)]
    if error.retry_after is not None:
        metadata.append(("retry-after", str(error.retry_after)))
    await context.abort(error.grpc, error.detail, tuple(metadata))


def _ending(context: Context) -> type[ServiceError]:
    """Return why a call was cancelled, of which gRPC says nothing: by its deadline, or by its client."""
    left = context.time_remaining()
    return ClientLeft if left is None or left > EARLY_SECONDS else DeadlineExceeded
