"""Connects to running servers: sends single pictures over HTTP or gRPC, and reads the server's CPU time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httptools
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


class _Connection(asyncio.Protocol):
    """An HTTP/1.1 connection for one request at a time, whose answer must be a PNG.

    Where there are no other cores, the client shares those of the server. This one takes some 0.1 ms for a frame; httpx
    would take as much as the server.
    """

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._body = bytearray()
        self._answered: asyncio.Future[None] | None = None

    async def send(self, message: bytes) -> bytes:
        """Send a whole request, head and body; return the PNG, or raise BenchError if the answer is none."""
        self._answered = asyncio.get_running_loop().create_future()
        self._body.clear()
        self.transport.write(message)
        try:
            await self._answered
        except asyncio.CancelledError:
            self.transport.abort()  # a late answer would be taken for that of the next request
            raise
        if not self._body.startswith(PNG_MAGIC):
            raise BenchError(f"{self._parser.get_status_code()} {self._body[:150].decode(errors='replace')}")
        return bytes(self._body)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(BenchError("the server closed the connection"))

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)


@asynccontextmanager
async def lean_http(url: str, connections: int) -> AsyncIterator[Callable[[bytes], Awaitable[bytes]]]:
    """Yield ``send`` of a request over so many connections; they take turns, as each may belong to another process."""
    at, idle = urlsplit(url), asyncio.Queue[_Connection]()

    async def connected() -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, at.hostname or "", at.port or 80)
        return connection

    async def send(message: bytes) -> bytes:
        connection = await idle.get()
        try:
            if connection.transport.is_closing():
                connection = await connected()
            return await connection.send(message)
        finally:
            idle.put_nowait(connection)

    try:
        for _ in range(connections):
            idle.put_nowait(await connected())
        yield send
    finally:
        while not idle.empty():
            idle.get_nowait().transport.close()
        await asyncio.sleep(0)  # in which they are closed


def message(request: httpx.Request) -> bytes:
    """Return a request as HTTP/1.1 writes it, head and body."""
    lines = [f"{request.method} {request.url.raw_path.decode()} HTTP/1.1".encode()]
    lines += [b"%s: %s" % header for header in request.headers.raw]
    return b"\r\n".join([*lines, b"", request.read()])


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
