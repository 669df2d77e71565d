"""gRPC: the wire format of ``pranet.v1.SegmentationService``, with standard health and reflection."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from model.predictor import ModelRef
from model.transforms import SIZE
from service import __version__
from service.core import Readiness, Service
from service.errors import InternalError, InvalidParameter, ServiceError, TooManyBytes
from service.frame import Options, Output
from service.observe import request_id_from
from service.pb.pranet.v1 import segmentation_pb2 as pb
from service.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc
from service.polyps import Polyp
from service.segmenter import Segmentation

Context = grpc.aio.ServicerContext[Any, Any]
Answer = TypeVar("Answer", bound=Message)

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["SegmentationService"].full_name
ERROR_METADATA_KEY = "pranet-error"
MESSAGE_OVERHEAD_BYTES = 64 * 1024  # everything in a request beside its image
HEALTH_SECONDS = 1.0  # how often health looks whether inference still answers
STOP_SECONDS = 1.0  # for answers already made to reach their clients
OUTPUTS = {
    pb.OUTPUT_UNSPECIFIED: Output.MASK,
    pb.OUTPUT_MASK: Output.MASK,
    pb.OUTPUT_PROBABILITY: Output.PROBABILITY,
    pb.OUTPUT_OVERLAY: Output.OVERLAY,
    pb.OUTPUT_POLYPS: Output.JSON,
}

log = logging.getLogger("pranet.access")


class Servicer(pb_grpc.SegmentationServiceServicer):
    """Answers the calls of ``segmentation.proto`` from a running service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def Segment(self, request: pb.SegmentRequest, context: Context) -> pb.SegmentResponse:
        """Segment one encoded image."""
        request_id = request_id_from(request.request_id)

        async def answer() -> pb.SegmentResponse:
            self._service.readiness.check()
            if len(request.image) > self._service.settings.max_image_bytes:
                raise TooManyBytes(f"the image has more than {self._service.settings.max_image_bytes} bytes")
            options = _options(request, self._service.settings.threshold)
            deadline = asyncio.get_running_loop().time() + self._seconds_left(context)
            return _response(await self._service.segmenter.segment(request.image, options, deadline), request_id)

        return await self._observed(context, request_id, answer)

    async def GetModelInfo(self, request: pb.GetModelInfoRequest, context: Context) -> pb.GetModelInfoResponse:
        """Name the weights that answer now, and the limits of this service."""
        settings = self._service.settings
        return pb.GetModelInfoResponse(
            model=_model(self._service.model),
            service_version=__version__,
            input_size=SIZE,
            threshold=settings.threshold,
            max_batch_size=self._service.max_batch_size,
            max_image_bytes=settings.max_image_bytes,
            max_image_pixels=settings.max_image_pixels,
        )

    def _seconds_left(self, context: Context) -> float:
        limit = self._service.settings.request_timeout_ms / 1e3
        remaining = context.time_remaining()
        return limit if remaining is None else min(remaining, limit)

    async def _observed(self, context: Context, request_id: str, answer: Callable[[], Awaitable[Answer]]) -> Answer:
        """Run one call; turn its error into a status, and count and log it."""
        began, code = time.perf_counter(), grpc.StatusCode.CANCELLED
        try:
            result = await answer()
            code = grpc.StatusCode.OK
            return result
        except ServiceError as error:
            code = error.grpc
            self._service.metrics.rejected.labels(error.slug).inc()
            await _abort(context, error, request_id)
        except Exception:
            code = InternalError.grpc
            log.exception("request %s failed", request_id)
            await _abort(context, InternalError("the service failed; its log has the cause"), request_id)
        finally:
            seconds = time.perf_counter() - began
            self._service.metrics.requests.labels("grpc", code.name).inc()
            self._service.metrics.request_duration.labels("grpc").observe(seconds)
            log.info("grpc Segment %s %.1f ms id=%s", code.name, seconds * 1e3, request_id)
        raise AssertionError("abort always raises")


@contextlib.asynccontextmanager
async def listening(service: Service, address: str) -> AsyncIterator[int]:
    """Serve gRPC on ``host:port`` inside the block; yields the port.

    Raises:
        OSError: the address is taken or not to be had.

    """
    limit = service.settings.max_image_bytes + MESSAGE_OVERHEAD_BYTES
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", limit), ("grpc.so_reuseport", 0)])
    pb_grpc.add_SegmentationServiceServicer_to_server(Servicer(service), server)  # type: ignore[no-untyped-call]
    checker = health.aio.HealthServicer()
    await _publish(checker, False)
    health_pb2_grpc.add_HealthServicer_to_server(checker, server)
    reflection.enable_server_reflection((SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address} for gRPC") from error
    await server.start()
    following = asyncio.create_task(_follow(service.readiness, checker))
    try:
        yield port
    finally:
        following.cancel()
        await server.stop(grace=STOP_SECONDS)


async def _follow(readiness: Readiness, checker: health.aio.HealthServicer) -> None:
    """Keep gRPC health equal to readiness."""
    while True:
        readiness.changed.clear()
        await _publish(checker, readiness.ready)
        with contextlib.suppress(TimeoutError):  # nobody announces that inference died
            async with asyncio.timeout(HEALTH_SECONDS):
                await readiness.changed.wait()


async def _publish(checker: health.aio.HealthServicer, ready: bool) -> None:
    status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
    for name in (health.OVERALL_HEALTH, SERVICE_NAME):
        await checker.set(name, status)


async def _abort(context: Context, error: ServiceError, request_id: str) -> None:
    metadata = ((ERROR_METADATA_KEY, error.slug), ("x-request-id", request_id))
    await context.abort(error.grpc, error.detail, metadata)


def _options(request: pb.SegmentRequest, default_threshold: float) -> Options:
    threshold = request.threshold if request.HasField("threshold") else default_threshold
    if not 0 <= threshold <= 1:
        raise InvalidParameter(f"threshold is {threshold}; send 0 to 1")
    if request.output not in OUTPUTS:
        raise InvalidParameter(f"output {request.output} is not known; see segmentation.proto")
    depth = request.probability_depth or 8
    if depth not in (8, 16):
        raise InvalidParameter(f"probability_depth is {depth}; send 8 or 16")
    return Options(threshold, OUTPUTS[request.output], depth, request.roi or "full")


def _response(segmentation: Segmentation, request_id: str) -> pb.SegmentResponse:
    return pb.SegmentResponse(
        request_id=request_id,
        width=segmentation.width,
        height=segmentation.height,
        png=segmentation.rendered.png,
        polyps=map(_polyp, segmentation.rendered.polyps),
        run_lengths=segmentation.rendered.run_lengths,
        threshold=segmentation.options.threshold,
        model=_model(segmentation.model),
        times=pb.StageTimes(**segmentation.times.milliseconds()),
        batch_size=segmentation.batch_size,
    )


def _polyp(polyp: Polyp) -> pb.Polyp:
    x, y, width, height = polyp.bounding_box
    return pb.Polyp(
        polygon=[pb.Point(x=px, y=py) for px, py in polyp.polygon],
        bounding_box=pb.Box(x=x, y=y, width=width, height=height),
        area_fraction=polyp.area_fraction,
        centroid=pb.Point(x=polyp.centroid[0], y=polyp.centroid[1]),
        mean_probability=polyp.mean_probability,
    )


def _model(ref: ModelRef) -> pb.Model:
    return pb.Model(
        model_id=ref.model_id,
        weights_sha256=ref.weights_sha256,
        engine=ref.engine,
        device=ref.device,
        precision=ref.precision,
    )
