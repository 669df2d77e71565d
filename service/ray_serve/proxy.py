"""Adapts Ray Serve's proxy to what the service expects: gRPC contexts, answers of streams, and request ids."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, NoReturn

import grpc
from google.protobuf import message
from ray.serve.grpc_util import RayServegRPCContext
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID_HEADER = "x-request-id"


class Aborted(Exception):
    """Raised by ``RayContext.abort`` after it has set the status of a gRPC call."""


class RayContext:
    """Gives Ray's gRPC context the interface of ``grpc.aio``; Ray's proxy does not forward deadlines."""

    def __init__(self, context: RayServegRPCContext) -> None:
        self.invocation_metadata = context.invocation_metadata
        self._context = context
        self._trailing: list[tuple[str, str]] = []  # Ray's own method replaces what was set before

    def peer(self) -> None:
        """Return None: the client is connected to Ray's proxy."""

    def time_remaining(self) -> None:
        """Return None: the client's deadline is not known here."""

    async def send_initial_metadata(self, metadata: list[tuple[str, str]]) -> None:
        """Add it to the trailing metadata, the only kind that Ray's proxy supports."""
        self.set_trailing_metadata(metadata)

    def set_trailing_metadata(self, metadata: Iterable[tuple[str, str]]) -> None:
        """Add it to what was set before."""
        self._trailing += metadata
        self._context.set_trailing_metadata(self._trailing)

    async def abort(self, code: grpc.StatusCode, details: str, metadata: tuple[tuple[str, str], ...]) -> NoReturn:
        """Set the status of the call, and end it by raising ``Aborted``."""
        self._context.set_code(code)
        self._context.set_details(details)
        self.set_trailing_metadata(metadata)
        raise Aborted


class RayStream(RayContext):
    """The context of a call with many answers; turns ``write`` calls into the generator that Ray needs."""

    def __init__(self, context: RayServegRPCContext) -> None:
        super().__init__(context)
        self._written: asyncio.Queue[message.Message | None] = asyncio.Queue()

    async def write(self, answer: message.Message) -> None:
        """Send an answer, and wait until Ray asks for the next one (backpressure)."""
        self._written.put_nowait(answer)
        await self._written.join()

    async def answers(
        self, method: Callable[[Any, Any], Awaitable[None]], requests: AsyncIterator[message.Message]
    ) -> AsyncIterator[message.Message]:
        """Yield the answers that ``method`` writes until it returns; closing the generator cancels it.

        Raises:
            Aborted: the call ended with a status, which is set on the context.

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
    """Wrap an application so that it sends no request id header, since Ray's proxy adds one to every answer."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                del MutableHeaders(scope=message)[REQUEST_ID_HEADER]
            await send(message)

        await app(scope, receive, send_on)

    return call
