"""The service on Ray Serve, ``serve run service.ray_serve.app:app max_replicas=4``; needs the extra ``ray``.

Run it in an empty folder. Ray's processes import modules from the working directory first (also with ``--app-dir``), so
a ``service.py`` or ``model.py`` there would replace the service's packages.

Each replica is one process with one device, one batcher and the routes of ``service.rest.routes``. Ray starts, scales,
checks, replaces and stops replicas. Its proxy listens on the ports and distributes requests.
"""

import asyncio
import contextlib
import os
from argparse import Namespace
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from pydantic import PositiveFloat, PositiveInt
from ray import serve
from ray.serve.config import AutoscalingConfig
from ray.serve.grpc_util import RayServegRPCContext
from starlette.routing import Router
from starlette.types import ASGIApp

from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from service import configuration
from service.calls import Call
from service.errors import TooManyBytes
from service.oip import rpc as oip
from service.pb.inference import open_inference_pb2 as inference
from service.ray_serve.proxy import Aborted, RayContext, RayStream, without_request_id
from service.readiness import Phase
from service.rest import routes
from service.rpc.call import STREAM, UNARY, call_of, entered
from service.rpc.servicer import Servicer
from service.runtime import load_predictor, running, warm_up
from service.settings import MESSAGE_LIMIT, Settings, SettingsError

HEALTH_SECONDS = 5.0  # between two health checks; Ray replaces a replica after three failures
SERVICES = (
    pb.DESCRIPTOR.services_by_name["SegmentationService"],
    inference.DESCRIPTOR.services_by_name["GRPCInferenceService"],
)
END_SECONDS = 10.0  # after DRAIN_SECONDS, until Ray kills a replica


class Scaling(AutoscalingConfig):
    """The arguments of ``app``: Ray's autoscaling settings, by default with enough requests to fill a batch."""

    max_replicas: PositiveInt = 4
    target_ongoing_requests: PositiveFloat | None = 8


class Replica:
    """One device and its batcher; it gets requests after its warm-up.

    Raises:
        SettingsError: a setting is unknown or invalid, TLS is on, or there are several processes.
        CheckpointError: the weights cannot be used.
        DeviceError: the device is not available.
        TimeoutError: the device did not finish the warm-up in time.

    """

    async def __init__(self) -> None:  # type: ignore[misc]  # Ray awaits it
        self._lifetime = AsyncExitStack()
        chosen = configuration.from_command_line(Namespace())
        _check(chosen)
        predictor = await asyncio.to_thread(load_predictor, chosen)
        self._service = await self._lifetime.enter_async_context(running(chosen, predictor))
        self._lifetime.callback(self._service.readiness.enter, Phase.DRAINING)
        self._service.calls.initialise_series(UNARY, STREAM)
        self._rpc = Servicer(self._service)
        self._oip = oip.Servicer(self._service)
        await warm_up(self._service, predictor)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the routes of ``pranet serve``; the router around them answers Ray's lifespan messages."""
        return Router(default=without_request_id(routes.build(self._service)), redirect_slashes=False)

    async def check_health(self) -> None:
        """Raise an error unless the replica accepts new work; Ray calls this periodically.

        Raises:
            NotReady: inference no longer answers; Ray replaces this replica.
            Draining: the replica is shutting down.

        """
        self._service.readiness.check()

    async def _answer(
        self, method: MethodDescriptor, request: Message, given: RayServegRPCContext, empty: Message
    ) -> Message:
        context: Any = RayContext(given)
        with contextlib.suppress(Aborted):
            async with self._entered(method, context):
                self._check_size(request)
                answer: Message = await self._method(method.name)(request, context)
                return answer
        return empty  # the context holds the status; Ray's proxy drops the metadata if an exception is raised

    async def _answers(
        self, method: MethodDescriptor, requests: AsyncIterator[Message], given: RayServegRPCContext
    ) -> AsyncGenerator[Message]:
        context: Any = RayStream(given)
        answered = context.answers(self._method(method.name), self._bounded(requests))
        async with self._entered(method, context), contextlib.aclosing(answered) as answers:
            async for answer in answers:
                yield answer

    def _entered(self, method: MethodDescriptor, context: Any) -> contextlib.AbstractAsyncContextManager[Call]:
        """Serve a call inside the block, as ``pranet serve`` does."""
        name = f"{method.containing_service.full_name}/{method.name}"
        return entered(self._service.calls, call_of(context, name), context)

    async def _bounded(self, requests: AsyncIterator[Message]) -> AsyncIterator[Message]:
        async for request in requests:
            self._check_size(request)
            yield request

    def _check_size(self, request: Message) -> None:
        """Apply the message limit of ``pranet serve``; Ray's own is 2 GiB."""
        limit = self._service.settings.max_message_bytes
        if (size := request.ByteSize()) > limit:
            raise TooManyBytes.of_message(size, limit, MESSAGE_LIMIT)

    def _method(self, name: str) -> Callable[[Any, Any], Awaitable[Any]]:
        found: Callable[[Any, Any], Awaitable[Any]] = getattr(self._rpc, name, None) or getattr(self._oip, name)
        return found

    async def __del__(self) -> None:
        """Shut down; Ray has already waited for the accepted requests, and sends no new ones."""
        await self._lifetime.aclose()


def _of_proto(method: MethodDescriptor) -> Callable[..., Any]:
    """Return the function that Ray calls for a gRPC method; the argument name ``grpc_context`` requests the context."""

    async def answer(self: Replica, request: Message, grpc_context: RayServegRPCContext) -> Message:
        return await self._answer(method, request, grpc_context, GetMessageClass(method.output_type)())

    async def answers(
        self: Replica, requests: AsyncIterator[Message], grpc_context: RayServegRPCContext
    ) -> AsyncGenerator[Message]:
        async with contextlib.aclosing(self._answers(method, requests, grpc_context)) as given:
            async for each in given:
                yield each

    return answers if method.server_streaming else answer


for _method in (each for service in SERVICES for each in service.methods):
    setattr(Replica, _method.name, _of_proto(_method))


def app(scaling: Scaling) -> serve.Application:
    """Return the Ray Serve application; ``serve run`` or Ray's config file gives the arguments.

    Raises:
        SettingsError: a setting is unknown or invalid, TLS is on, or there are several processes.

    """
    chosen, _ = configuration.load(os.environ, {})
    _check(chosen)
    deployed = serve.deployment(
        name="pranet",
        autoscaling_config=scaling,
        max_ongoing_requests=2 * chosen.max_queue_size,  # more than the queue holds: the service refuses, not Ray
        health_check_period_s=HEALTH_SECONDS,
        graceful_shutdown_timeout_s=chosen.drain_seconds + END_SECONDS,
    )
    return deployed(serve.ingress()(Replica)).bind()


def _check(chosen: Settings) -> None:
    if chosen.processes > 1:
        raise SettingsError(
            "PROCESSES has no effect with Ray, which starts the replicas; unset it, and set max_replicas"
        )
    if chosen.tls_cert:  # otherwise the setting would be ignored silently
        raise SettingsError(
            "TLS_CERT has no effect with Ray, whose proxy has the ports; unset it, and set ssl_certfile in http_options"
        )
