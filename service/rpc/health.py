"""The gRPC health service, ``grpc.health.v1``; the overall health, and that of each service, is the readiness.

grpc_health's own servicer writes to a watcher while it holds a lock that each change needs: one watcher that does not
read would keep the news from all others.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse

from service.errors import UnknownRoute
from service.rpc.call import Context


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # it has no types
    """Answers health checks of the services named, and of ``""``, the whole server."""

    def __init__(self, services: Sequence[str]) -> None:
        self._services = (health.OVERALL_HEALTH, *services)
        self._status = HealthCheckResponse.NOT_SERVING
        self._changed = asyncio.Event()  # set, and replaced, at each change

    def publish(self, ready: bool) -> None:
        """Tell checks and watchers whether the server accepts work."""
        status = HealthCheckResponse.SERVING if ready else HealthCheckResponse.NOT_SERVING
        if status != self._status:
            self._status = status
            self._changed.set()
            self._changed = asyncio.Event()

    async def Check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        """Return the status of a service.

        Raises:
            UnknownRoute: there is no such service.

        """
        if request.service not in self._services:
            known = ", ".join(self._services[1:])
            raise UnknownRoute(f"this server has no such service; ask for the health of '' or of one of these: {known}")
        return HealthCheckResponse(status=self._status)

    async def List(self, request: HealthListRequest, context: Context) -> HealthListResponse:
        """Return the status of all services."""
        status = HealthCheckResponse(status=self._status)
        return HealthListResponse(statuses=dict.fromkeys(self._services, status))

    async def Watch(self, request: HealthCheckRequest, context: Context) -> AsyncIterator[HealthCheckResponse]:
        """Yield the status of a service, now and at each change, until the client leaves."""
        if request.service not in self._services:
            yield HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
            await asyncio.Event().wait()  # as the protocol asks: the client may wait for the service to appear
        told = None
        while True:
            changed = self._changed
            if told != self._status:
                told = self._status
                yield HealthCheckResponse(status=told)
            await changed.wait()
