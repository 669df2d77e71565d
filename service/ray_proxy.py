"""What Ray Serve's proxy does otherwise than ``pranet serve``, and what replicas do about it."""

from typing import NoReturn

import grpc
from ray.serve.grpc_util import RayServegRPCContext
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.observe import REQUEST_ID_HEADER


class Aborted(Exception):
    """A gRPC call has ended with a status."""


class RayContext:
    """What Ray tells of a gRPC call, as ``grpc.aio`` names it; deadlines do not pass Ray's proxy."""

    def __init__(self, context: RayServegRPCContext) -> None:
        self.invocation_metadata = context.invocation_metadata
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


def without_request_id(app: ASGIApp) -> ASGIApp:
    """Leave the request id's header to Ray's proxy, which adds it to every answer."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                del MutableHeaders(scope=message)[REQUEST_ID_HEADER]
            await send(message)

        await app(scope, receive, send_on)

    return call
