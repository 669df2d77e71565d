"""The addresses on which both servers listen."""

import socket

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support import processes


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return socket.has_dualstack_ipv6()


@pytest.mark.slow
@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_a_host_of_two_colons_is_ipv6_and_ipv4_on_both_ports() -> None:
    with processes.fake_server("--host", "::") as server:
        port, grpc_port = (int(address.rpartition(":")[2]) for address in (server.url, server.grpc_address))
        for host in ("127.0.0.1", "[::1]"):
            assert httpx.get(f"http://{host}:{port}/readyz", trust_env=False).status_code == 200
            with grpc.insecure_channel(f"{host}:{grpc_port}") as channel:
                health = health_pb2_grpc.HealthStub(channel)
                answer = health.Check(health_pb2.HealthCheckRequest(), timeout=30)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
