"""The gRPC server: ``pranet.v1.SegmentationService`` and further services, with health checks and reflection."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Mapping

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc
from service.access.tls import HANDSHAKE_SECONDS
from service.clients.connections import connections_at
from service.readiness import Readiness
from service.rpc.call import STREAM, UNARY, peer_name
from service.rpc.health import HealthServicer
from service.rpc.interceptor import CallInterceptor
from service.rpc.servicer import Servicer
from service.runtime import Service

AddTo = Callable[[grpc.aio.Server, Service], None]

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["SegmentationService"].full_name
# A peer that disappeared without closing the connection, and its streams, end after the sum of both times.
KEEPALIVE_SECONDS = 10.0  # idle time before a ping is sent
KEEPALIVE_TIMEOUT_SECONDS = 5.0  # until the ping is answered, or sent bytes are acknowledged
# A client that sends pings more often without frames between is disconnected; every 2 s is usual on mobile networks.
CLIENT_PING_SECONDS = 0.5
MAX_CALLS = 256  # open at once on one connection
MAX_METADATA_BYTES = 32 * 1024
AHEAD_BYTES = 2**20  # of a message, received before the server awaits it
STOP_SECONDS = 1.0  # for answers already made to reach their clients


@contextlib.asynccontextmanager
async def listening(service: Service, address: str, more: Mapping[str, AddTo]) -> AsyncIterator[int]:
    """Serve gRPC inside the block; yield the port number.

    Args:
        service: answers the calls.
        address: ``host:port``; port 0 picks a free one.
        more: further gRPC services by full name, each a function that adds its servicer to the server.

    Raises:
        OSError: the address is taken, or does not belong to this machine.

    """
    service.calls.initialise_series(UNARY, STREAM)
    server = grpc.aio.server(
        interceptors=[
            CallInterceptor(
                service.calls,
                message_seconds=service.settings.request_timeout_ms / 1e3,
                message_bytes=service.settings.max_message_bytes,
            )
        ],
        options=_options(service.settings.cut_off_bytes, shared=service.group.size > 1),
    )
    pb_grpc.add_SegmentationServiceServicer_to_server(Servicer(service), server)  # type: ignore[no-untyped-call]
    for add_to in more.values():
        add_to(server, service)
    names = (SERVICE_NAME, *more)
    checker = HealthServicer(names)
    health_pb2_grpc.add_HealthServicer_to_server(checker, server)
    reflection.enable_server_reflection((*names, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        tls = service.tls
        port = server.add_secure_port(address, tls.credentials()) if tls else server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address} for gRPC") from error
    await server.start()
    service.calls.sources.append(functools.partial(connections_at, port, peer_name))
    following = asyncio.create_task(_follow(service.readiness, checker))
    try:
        yield port
    finally:
        following.cancel()
        await server.stop(grace=STOP_SECONDS)


def _options(cut_off_bytes: int, *, shared: bool) -> list[tuple[str, int]]:
    """Return the server's options under the names of gRPC core."""
    return [
        ("grpc.max_receive_message_length", cut_off_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.http2.bdp_probe", 0),  # otherwise gRPC buffers tens of megabytes of each call of a fast client
        ("grpc.http2.lookahead_bytes", AHEAD_BYTES),
        ("grpc.keepalive_time_ms", round(KEEPALIVE_SECONDS * 1e3)),
        ("grpc.keepalive_timeout_ms", round(KEEPALIVE_TIMEOUT_SECONDS * 1e3)),
        # 60 s otherwise, whatever the keepalive timeout is.
        ("grpc.http2.ping_timeout_ms", round(KEEPALIVE_TIMEOUT_SECONDS * 1e3)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", round(CLIENT_PING_SECONDS * 1e3)),
        ("grpc.so_reuseport", int(shared)),
        ("grpc.server_handshake_timeout_ms", round(HANDSHAKE_SECONDS * 1e3)),  # 120 s otherwise
        ("grpc.max_concurrent_streams", MAX_CALLS),  # unlimited otherwise
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ]


async def _follow(readiness: Readiness, checker: HealthServicer) -> None:
    """Publish readiness as gRPC health, now and at each change."""
    while True:
        checker.publish(readiness.ready)
        await readiness.change()
