"""What Ray Serve's proxy does otherwise than ``pranet serve``, and what replicas do about it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc
from google.protobuf import message
from ray.serve.grpc_util import RayServegRPCContext
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID_HEADER = "x-request-id"


class Aborted(Exception):
    """A gRPC call has ended with a status."""


class RayContext:
    """What Ray tells of a gRPC call, as ``grpc.aio`` names it; deadlines do not pass Ray's proxy."""

    def __init__(self, context: RayServegRPCContext) -> None:
        self.invocation_metadata = context.invocation_metadata
        self.set_trailing_metadata = lambda metadata: context.set_trailing_metadata([*metadata])
        self._context = context

    def time_remaining(self) -> None:
        """Tell that no deadline is known."""

    async def send_initial_metadata(self, metadata: list[tuple[str, str]]) -> None:
        """Send it with the rest: Ray's proxy has only trailing metadata."""
        self._context.set_trailing_metadata(metadata)

    async def abort(self, code: grpc.StatusCode, details: str, metadata: tuple[tuple[str, str], ...]) -> NoReturn:
        """End the call with a status."""
        self._context.set_code(code)
        self._context.set_details(details)
        self._context.set_trailing_metadata([*metadata])
        raise Aborted


class RayStream(RayContext):
    """A call with many answers, which Ray takes from a generator."""

    def __init__(self, context: RayServegRPCContext) -> None:
        super().__init__(context)
        self._written: asyncio.Queue[message.Message | None] = asyncio.Queue()

    async def write(self, answer: message.Message) -> None:
        """Return when Ray has taken the answer and comes for the next."""
        self._written.put_nowait(answer)
        await self._written.join()

    async def answers(
        self, method: Callable[[Any, Any], Awaitable[None]], requests: AsyncIterator[message.Message]
    ) -> AsyncIterator[message.Message]:
        """Yield what ``method`` writes until it returns; who leaves the generator ends it.

        Raises:
            Aborted: the call ended with a status, which the context has.

        """
        ending = asyncio.ensure_future(self._until_end(method(requests, self)))
        try:
            while (answer := await self._written.get()) is not None:
                yield answer
                self._written.task_done()
            await ending
        finally:
            ending.cancel()
            await asyncio.wait([ending])

    async def _until_end(self, method: Awaitable[None]) -> None:
        try:
            await method
        finally:
            self._written.put_nowait(None)


def without_request_id(app: ASGIApp) -> ASGIApp:
    """Leave the request id's header to Ray's proxy, which adds it to every answer."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                del MutableHeaders(scope=message)[REQUEST_ID_HEADER]
            await send(message)

        await app(scope, receive, send_on)

    return call
