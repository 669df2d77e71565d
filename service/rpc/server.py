"""gRPC: the wire format of ``pranet.v1.SegmentationService``, with standard health and reflection."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from model.transforms import SIZE
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc
from service import __version__
from service.access.tls import HANDSHAKE_SECONDS
from service.errors import InvalidRequest, TooManyBytes
from service.observability.access_log import request_id_from
from service.oip import rpc as oip
from service.rpc import messages
from service.rpc.call import Context, given_request_id, observed, seconds_left, write
from service.rpc.interceptor import RpcGate
from service.runtime import Readiness, Service
from service.streams.stream import Answer as StreamAnswer
from service.streams.stream import Frame

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["SegmentationService"].full_name
HEALTH_SECONDS = 1.0  # how often health looks whether inference still answers
# A peer that vanished without a word is given up after both times together, and its streams with it.
KEEPALIVE_SECONDS = 10.0  # of silence, until a ping is sent
KEEPALIVE_TIMEOUT_SECONDS = 5.0  # for the ping to be answered, or sent bytes to be acknowledged
CLIENT_PING_SECONDS = 5.0  # least time between pings that a client may send without being cut off
MAX_CALLS = 256  # open at once on one connection
MAX_METADATA_BYTES = 32 * 1024
AHEAD_BYTES = 2**20  # taken of a message before it is awaited
STOP_SECONDS = 1.0  # for answers already made to reach their clients


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
                raise TooManyBytes.of_image(self._service.settings.max_image_bytes)
            options = messages.options(request, self._service.settings.threshold)
            seconds = seconds_left(context, self._service.settings.request_timeout_ms)
            deadline = asyncio.get_running_loop().time() + seconds
            done = await self._service.segmenter.segment(request.image, options, deadline)
            return messages.response(done, request_id)

        return await observed(self._service, context, request_id, f"{SERVICE_NAME}/Segment", answer)

    async def SegmentStream(self, requests: AsyncIterator[pb.StreamRequest], context: Context) -> None:
        """Segment video; ``service.streams.stream`` tells what becomes of its frames."""
        request_id = request_id_from(given_request_id(context))
        sent = _readable(requests)

        async def frames() -> AsyncIterator[Frame]:
            async for request in sent:
                yield messages.frame(request)

        async def send(answer: StreamAnswer) -> None:
            await write(context, messages.stream_response(answer))

        async def answer() -> None:
            self._service.readiness.check()
            first = await self._service.streams.first(sent)
            options = messages.stream_options(first, self._service.settings.threshold)
            with self._service.streams.open(options) as stream:
                await stream.run(frames(), send)

        await observed(self._service, context, request_id, f"{SERVICE_NAME}/SegmentStream", answer)

    async def GetModelInfo(self, request: pb.GetModelInfoRequest, context: Context) -> pb.GetModelInfoResponse:
        """Name the weights that answer now, and the limits of this service."""
        settings = self._service.settings
        return pb.GetModelInfoResponse(
            model=messages.model(self._service.model),
            service_version=__version__,
            input_size=SIZE,
            threshold=settings.threshold,
            max_batch_size=self._service.max_batch_size,
            max_image_bytes=settings.max_image_bytes,
            max_image_pixels=settings.max_image_pixels,
        )


@contextlib.asynccontextmanager
async def listening(service: Service, address: str) -> AsyncIterator[int]:
    """Serve gRPC on ``host:port`` inside the block; yields the port.

    Raises:
        OSError: the address is taken or not to be had.

    """
    server = grpc.aio.server(
        interceptors=[
            RpcGate(
                service.gate,
                service.metrics,
                message_seconds=service.settings.request_timeout_ms / 1e3,
                message_bytes=service.settings.max_message_bytes,
            )
        ],
        options=_options(service.settings.cut_off_bytes),
    )
    pb_grpc.add_SegmentationServiceServicer_to_server(Servicer(service), server)  # type: ignore[no-untyped-call]
    oip.add_to(server, service)
    checker = health.aio.HealthServicer()
    await _publish(checker, False)
    health_pb2_grpc.add_HealthServicer_to_server(checker, server)
    served = (SERVICE_NAME, oip.SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(served, server)
    try:
        tls = service.tls
        port = server.add_secure_port(address, tls.credentials()) if tls else server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address} for gRPC") from error
    await server.start()
    following = asyncio.create_task(_follow(service.readiness, checker))
    try:
        yield port
    finally:
        following.cancel()
        await server.stop(grace=STOP_SECONDS)


def _options(cut_off_bytes: int) -> list[tuple[str, int]]:
    """Return the options of the server's channels, as gRPC core names them."""
    return [
        ("grpc.max_receive_message_length", cut_off_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.http2.bdp_probe", 0),  # else a fast client has gRPC take tens of megabytes of each call ahead
        ("grpc.http2.lookahead_bytes", AHEAD_BYTES),
        ("grpc.keepalive_time_ms", round(KEEPALIVE_SECONDS * 1e3)),
        ("grpc.keepalive_timeout_ms", round(KEEPALIVE_TIMEOUT_SECONDS * 1e3)),
        (
            "grpc.http2.ping_timeout_ms",
            round(KEEPALIVE_TIMEOUT_SECONDS * 1e3),
        ),  # 60 s otherwise, whatever keepalive says
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", round(CLIENT_PING_SECONDS * 1e3)),
        ("grpc.so_reuseport", 0),
        ("grpc.server_handshake_timeout_ms", round(HANDSHAKE_SECONDS * 1e3)),  # 120 s otherwise
        ("grpc.max_concurrent_streams", MAX_CALLS),  # unlimited otherwise
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ]


async def _readable(requests: AsyncIterator[pb.StreamRequest]) -> AsyncIterator[pb.StreamRequest]:
    """Pass on the messages of a stream.

    Raises:
        InvalidRequest: bytes came that are none.

    """
    try:
        async for request in requests:
            yield request
    except DecodeError:
        raise InvalidRequest("what came is no StreamRequest; send what segmentation.proto describes") from None


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
    for name in (health.OVERALL_HEALTH, SERVICE_NAME, oip.SERVICE_NAME):
        await checker.set(name, status)
