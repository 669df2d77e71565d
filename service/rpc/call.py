"""Connects gRPC to ``service.calls``: makes a ``Call`` of metadata and deadline, and a status of its error."""

import asyncio
import contextlib
import ipaddress
import socket
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import grpc
from google.protobuf.message import Message

from pranet_client.errors import ERROR_METADATA_KEY
from service.calls import Call, Calls, Transport, current
from service.clients.awaited import CUT_OFF_SECONDS, NOBODY, READER, Awaited
from service.errors import ClientLeft, DeadlineExceeded, ServiceError

Context = grpc.aio.ServicerContext[Any, Any]

WORK = frozenset({"Segment", "SegmentStream", "ModelInfer", "ModelStreamInfer"})
STREAMS = frozenset({"SegmentStream", "ModelStreamInfer"})
LASTING = STREAMS | {"Watch"}  # minutes and hours; metrics count them separately
PROBES = frozenset({"ServerLive", "ServerReady", "ModelReady"})  # polled all the time, as health checks are
STATUS_SECONDS = 30.0  # how long a status may wait for the client to read the answers before it
EARLY_SECONDS = 0.1  # the client's deadline may pass this much before ours, which starts when the call arrives

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
    """Make a call of a method.

    Args:
        context: gRPC's own of the call.
        method: the full name, with or without a leading slash. For an unknown method use ``"-"``: the client chose the
            name, which may hold a patient's.
        is_open: the method needs no token.

    """
    name = method.removeprefix("/")
    short = name.rpartition("/")[2]
    metadata = context.invocation_metadata() or ()
    return Call(
        transport=STREAM if short in LASTING else UNARY,
        name=name,
        headers=dict(metadata),
        authorizations=authorizations(metadata),
        timeout=context.time_remaining(),
        is_open=is_open,
        is_work=short in WORK,
        is_stream=short in STREAMS,
        is_quiet=is_open or short in PROBES,
        connection=context.peer(),
        cancelled_by=lambda: _ending(context),
    )


@contextlib.asynccontextmanager
async def entered(calls: Calls, call: Call, context: Context) -> AsyncIterator[Call]:
    """Serve a call inside the block; an error ends the call with its gRPC status.

    Raises:
        AbortError: raised by gRPC after it has ended the call with a status.
        CancelledError: the client disconnected.

    """
    try:
        async with calls.enter(call):
            if call.traceparent or call.is_stream:  # of a stream early: no error goes past a first answer that waits
                with _client_may_leave():
                    await context.send_initial_metadata([("traceparent", call.traceparent)] if call.traceparent else [])
            if call.is_stream:
                call.remove_deadline()
            yield call
    except ClientLeft:
        raise asyncio.CancelledError from None  # there is no client to send a status to
    except ServiceError as error:
        await abort(context, error, call.request_id, CUT_OFF_SECONDS if call.is_cut_off else STATUS_SECONDS)


def authorizations(metadata: Iterable[tuple[str, str | bytes]]) -> list[str]:
    """Return all values of ``authorization`` in the metadata; authentication refuses several."""
    return [str(value) for name, value in metadata if name == "authorization"]


def peer_name(peer: socket.socket) -> str:
    """Return the client of a connection as gRPC's contexts name it, such as ``ipv4:192.0.2.1:50000``."""
    host, port, *more = peer.getpeername()
    address = ipaddress.ip_address(host.partition("%")[0])
    if mapped := getattr(address, "ipv4_mapped", None):
        address = mapped
    if address.version == 4:
        return f"ipv4:{address}:{port}"
    scope = f"%25{more[-1]}" if more[-1] else ""  # the network of a link-local address
    return f"ipv6:%5B{address}{scope}%5D:{port}"


@contextlib.contextmanager
def _client_may_leave() -> Iterator[None]:
    try:
        yield
    except grpc.aio.InternalError as error:  # raised by gRPC if it did not cancel this call first
        raise ClientLeft("the client left while it was answered") from error


async def write(context: Context, message: Message) -> None:
    """Send one answer of a stream; waits while the client does not read (backpressure).

    Raises:
        ClientLeft: the client closed the stream.

    """
    call = current()
    call.awaited = Awaited(READER, time.monotonic())
    with _client_may_leave():
        await context.write(message)
    call.awaited = NOBODY


async def abort(context: Context, error: ServiceError, request_id: str, seconds: float) -> None:
    """End a call with the status of an error; the trailing metadata hold cause, request id and ``retry-after``.

    The status may wait ``seconds`` for the client to read what comes before it.

    Raises:
        AbortError: raised by gRPC after it has ended the call.
        CancelledError: the client left before it read the status, or does not read what comes before it, or gRPC has
            ended the call during a shutdown.

    """
    metadata = [(ERROR_METADATA_KEY, error.slug), ("x-request-id", request_id)]
    if error.retry_after is not None:
        metadata.append(("retry-after", str(error.retry_after)))
    try:
        async with asyncio.timeout(seconds):
            await context.abort(error.grpc, error.detail, tuple(metadata))
    except (grpc.aio.InternalError, TimeoutError):
        raise asyncio.CancelledError from None


def _ending(context: Context) -> type[ServiceError]:
    """Return whether the deadline or the client cancelled a call; gRPC itself does not tell."""
    left = context.time_remaining()
    return ClientLeft if left is None or left > EARLY_SECONDS else DeadlineExceeded
