"""Connects to running servers: sends single pictures over HTTP or gRPC, and reads the server's CPU time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families

from pranet_client.credentials import NO_ACCESS, Access
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc
from service.commands.bench.errors import BenchError
from service.commands.bench.load import Send

CPU_SERIES = "process_cpu_seconds_total"
PNG_MAGIC = b"\x89PNG"
TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Server:
    """A running server."""

    send: Send  # sends one encoded picture, and raises an error unless the answer is a PNG
    metrics: httpx.AsyncClient  # for its REST interface

    async def cpu_seconds(self) -> float | None:
        """Return the CPU time that the server's ``/metrics`` report, seconds; None if they do not."""
        try:
            text = (await self.metrics.get("/metrics")).text
            samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
            return next((sample.value for sample in samples if sample.name == CPU_SERIES), None)
        except (httpx.TransportError, ValueError):  # a proxy may answer in its place, and with a page
            return None


@asynccontextmanager
async def http(url: str, access: Access = NO_ACCESS) -> AsyncIterator[Server]:
    """Yield a server that is called by ``POST /segment``, with one connection for each request in flight."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with access.http(url, limits=limits, timeout=TIMEOUT_SECONDS) as client:

        async def send(image: bytes) -> None:
            answer = await client.post("/segment", content=image, headers={"content-type": "application/octet-stream"})
            if answer.status_code != httpx.codes.OK or not answer.content.startswith(PNG_MAGIC):
                raise BenchError(f"{answer.status_code} {answer.text[:150]}")

        await _reached(client)
        yield Server(send, client)


@asynccontextmanager
async def rpc(url: str, address: str, access: Access = NO_ACCESS) -> AsyncIterator[Server]:
    """Yield a server that is called by ``SegmentationService.Segment`` on one channel; ``url`` is for its metrics."""
    async with (
        access.http(url, timeout=TIMEOUT_SECONDS) as client,
        access.channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel,  # channels share no connection
    ):
        stub = pb_grpc.SegmentationServiceStub(channel)  # type: ignore[no-untyped-call]

        async def send(image: bytes) -> None:
            request = pb.SegmentRequest(image=image)
            answer = await stub.Segment(request, timeout=TIMEOUT_SECONDS, metadata=access.metadata())
            if not answer.png.startswith(PNG_MAGIC):
                raise BenchError("the answer is not a PNG")

        await _reached(client)
        yield Server(send, client)


async def _reached(client: httpx.AsyncClient) -> None:
    try:
        (await client.get("/readyz")).raise_for_status()
    except httpx.HTTPError as error:
        raise BenchError(f"no server is ready at {client.base_url} ({error}); start one with: pranet serve") from error
