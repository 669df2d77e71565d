"""The interceptor that runs every gRPC method as a call; only health checks need no token."""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health

from service.calls import UNKNOWN, Call, Calls
from service.clients.awaited import NOBODY, REQUEST, Awaited
from service.errors import BodyTooSlow, DeadlineExceeded, InvalidRequest, MethodNotAllowed, TooManyBytes
from service.rpc.call import Context, call_of, entered
from service.rpc.health_limits import HealthLimits, MessageLimits
from service.tasks import drop_tracebacks

OPEN_SERVICE = f"/{health.SERVICE_NAME}/"
CANCELLED_SECONDS = 0.1  # messages also end because of a cancellation, which arrives up to this much later


class _Messages:
    """The request messages of a call; after the block, gRPC holds no reference to them.

    gRPC keeps two objects after a call: the message iterator, which holds itself and the last message, and the error
    that ended the call, whose traceback holds the call's local variables. Both are released here. (A generator with
    ``asynccontextmanager`` would restore the traceback.)
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
        except DecodeError:
            raise InvalidRequest("the message is not of this method's type; send the one in its .proto file") from None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._messages.aclose()
        if isinstance(error, (grpc.aio.AbortError, asyncio.CancelledError)):
            drop_tracebacks(error)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Runs every method as a ``Call``, and limits the time and size of its messages.

    Every method is handled as one with a stream of requests, which on the wire a unary request is, too. So a call can
    be refused before its message is read, and the wait for the message can be limited.
    """

    def __init__(self, calls: Calls, *, message_seconds: float, message_bytes: int) -> None:
        self._calls = calls
        self._limits = MessageLimits(message_seconds, message_bytes)
        self._health_limits = HealthLimits()

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], call: grpc.HandlerCallDetails
    ) -> Any:
        """Wrap the handler of a method, or return one that refuses an unknown method."""
        method = await continuation(call)
        if method is None:  # gRPC itself would refuse the call without counting it
            return self._entered(grpc.stream_stream_rpc_method_handler(_unknown), UNKNOWN, self._limits)
        is_open = call.method.startswith(OPEN_SERVICE)
        limits = self._health_limits.of(watch=method.response_streaming) if is_open else self._limits
        return self._entered(method, call.method, limits, is_open=is_open)

    def _entered(self, method: Any, name: str, limits: MessageLimits, *, is_open: bool = False) -> Any:
        """Return a handler that runs ``method`` inside a ``Call``; ``name`` is its full name."""
        behaviour = getattr(method, f"{_kind(method.request_streaming)}_{_kind(method.response_streaming)}")

        async def asked(requests: Any, context: Context, call: Call) -> Any:
            return requests if method.request_streaming else await _only(requests, limits, context, call)

        async def answer(requests: Any, context: Context) -> Any:
            call = call_of(context, name, is_open=is_open)
            async with _Messages(requests) as messages, entered(self._calls, call, context):
                with limits.held(context):
                    made = await behaviour(await asked(messages, context, call), context)
                if context.time_remaining() == 0:  # the client has ended the call, and may not have been heard yet
                    raise DeadlineExceeded
                return made

        async def answers(requests: Any, context: Context) -> AsyncIterator[Any]:
            call = call_of(context, name, is_open=is_open)
            async with _Messages(requests) as messages, entered(self._calls, call, context):
                call.remove_deadline()
                with limits.held(context):
                    async for each in behaviour(await asked(messages, context, call), context):
                        yield each

        make = getattr(grpc, f"stream_{_kind(method.response_streaming)}_rpc_method_handler")
        served = answers if inspect.isasyncgenfunction(behaviour) else answer
        return make(served, _measured(method.request_deserializer, limits), method.response_serializer)


async def _unknown(requests: Any, context: Context) -> None:
    raise MethodNotAllowed("this gRPC method does not exist; see the .proto files")


async def _only(requests: Any, limits: MessageLimits, context: Context, call: Call) -> Any:
    try:
        call.awaited = Awaited(REQUEST, time.monotonic())
        async with asyncio.timeout(limits.message_seconds), limits.turn(context):
            message = await anext(requests)
        call.awaited = NOBODY
        return message
    except TimeoutError:
        raise BodyTooSlow("the message did not arrive before the deadline of the request; send it faster") from None
    except StopAsyncIteration:
        raise InvalidRequest("the call ended without a request message; send one") from None


def _measured(deserialize: Callable[[bytes], Any] | None, limits: MessageLimits) -> Callable[[bytes], Any]:
    """Refuse messages that are too large before they are parsed; errors of gRPC's own limit have no cause or count."""

    def measured(message: bytes) -> Any:
        if len(message) > limits.message_bytes:
            raise TooManyBytes.of_message(len(message), limits.message_bytes, limits.whose)
        return deserialize(message) if deserialize else message

    return measured


def _kind(streaming: bool) -> str:
    return "stream" if streaming else "unary"
