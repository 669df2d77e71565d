"""The gate in front of every gRPC method, those of later days too; that of health is open to all."""

import asyncio
import functools
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health

from service.access.authentication import Gate
from service.errors import BodyTooSlow, InvalidRequest, MethodNotAllowed, ServiceError, TooManyBytes
from service.observability.metrics import Metrics
from service.rpc.call import Context, abort, ending
from service.rpc.health_limits import Door, OpenDoors, by_token
from service.tasks.group import forget_frames

OPEN_SERVICE = f"/{health.SERVICE_NAME}/"
CANCELLED_SECONDS = 0.1  # after the end of its messages, until a call is cancelled if that is why they ended

log = logging.getLogger("pranet.access")


class _Messages:
    """The messages of a call; after the block, nothing that gRPC keeps of the call holds one of them.

    It keeps the iterator, which holds itself and the last message, and the error that ended the call, whose frames hold
    the call. (A generator with ``asynccontextmanager`` would put the frames back.)
    """

    def __init__(self, requests: Any) -> None:
        self._messages = aiter(requests)

    async def __aenter__(self) -> Self:
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            return await anext(self._messages)
        except StopAsyncIteration:
            await asyncio.sleep(CANCELLED_SECONDS)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._messages.aclose()
        if isinstance(error, (grpc.aio.AbortError, asyncio.CancelledError)):
            forget_frames(error)


class RpcGate(grpc.aio.ServerInterceptor):
    """Refuses calls without a valid token before their messages are read, and messages that do not arrive."""

    def __init__(self, gate: Gate, metrics: Metrics, *, message_seconds: float, message_bytes: int) -> None:
        self._metrics = metrics
        self._door = by_token(gate, message_seconds, message_bytes)
        self._open_doors = OpenDoors()

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], call: grpc.HandlerCallDetails
    ) -> Any:
        """Put the gate in front of a method, and behind it a refusal where there is none."""
        method = await continuation(call)
        if method is None:  # gRPC itself would refuse it uncounted
            return self._guarded(self._unknown(), self._door, "-")  # a client's own name for it may name a patient
        is_open = call.method.startswith(OPEN_SERVICE)
        door = self._open_doors.door(watch=method.response_streaming) if is_open else self._door
        return self._guarded(method, door, call.method.rpartition("/")[2])

    def _unknown(self) -> Any:
        async def refuse(requests: Any, context: Context) -> None:
            await self._refuse("-", context, MethodNotAllowed("no such method is served here; see the .proto files"))

        return grpc.stream_stream_rpc_method_handler(refuse)

    def _guarded(self, method: Any, door: Door, name: str) -> Any:
        """Return the method behind the gate; on the wire a unary request is a stream of one, which can be timed."""
        behaviour = getattr(method, f"{_kind(method.request_streaming)}_{_kind(method.response_streaming)}")
        enter = functools.partial(self._enter, name, door, method.request_streaming)

        async def answer(requests: Any, context: Context) -> Any:
            async with _Messages(requests) as messages:
                with ExitStack() as stack:
                    return await behaviour(await enter(stack, messages, context), context)

        async def answers(requests: Any, context: Context) -> AsyncIterator[Any]:
            async with _Messages(requests) as messages:
                with ExitStack() as stack:
                    async for each in behaviour(await enter(stack, messages, context), context):
                        yield each

        make = getattr(grpc, f"stream_{_kind(method.response_streaming)}_rpc_method_handler")
        guarded = answers if inspect.isasyncgenfunction(behaviour) else answer
        return make(guarded, _measured(method.request_deserializer, door.message_bytes), method.response_serializer)

    async def _enter(
        self, name: str, door: Door, streaming: bool, stack: ExitStack, requests: Any, context: Context
    ) -> Any:
        """Let the caller in and return what the method is called with."""
        try:
            stack.enter_context(door.entered(context))
            return requests if streaming else await _only(requests, door, context)
        except asyncio.CancelledError:
            self._count(name, ending(context))
            raise
        except ServiceError as error:
            await self._refuse(name, context, error)
        raise AssertionError("abort always raises")

    async def _refuse(self, name: str, context: Context, error: ServiceError) -> None:
        self._count(name, error)
        await abort(context, error)

    def _count(self, name: str, error: ServiceError | type[ServiceError]) -> None:
        self._metrics.rejected.labels(error.slug).inc()
        self._metrics.requests.labels("grpc", error.grpc.name).inc()
        log.info("grpc %s refused %s", name, error.grpc.name)


async def _only(requests: Any, door: Door, context: Context) -> Any:
    try:
        async with asyncio.timeout(door.message_seconds), door.turn(context):
            return await anext(requests)
    except TimeoutError:
        raise BodyTooSlow("the message did not arrive within the request's time; send it faster") from None
    except StopAsyncIteration:
        raise InvalidRequest("the call ended without its message; send one") from None
    except DecodeError:
        raise InvalidRequest("what came is no message of this method; send what its .proto file describes") from None


def _measured(deserialize: Callable[[bytes], Any], most: int) -> Callable[[bytes], Any]:
    """Refuse a message that is too large before it is parsed; gRPC's own refusal names no cause and is not seen."""

    def measured(message: bytes) -> Any:
        if len(message) > most:
            raise TooManyBytes.of_message(len(message), most)
        return deserialize(message)

    return measured


def _kind(streaming: bool) -> str:
    return "stream" if streaming else "unary"
