"""The loads of ``pranet bench overhead``, each over one transport.

Each keeps a number of frames in flight. Over REST and gRPC there is also an open loop: so many frames a second.
"""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import cast
from urllib.parse import urlsplit

import httptools
from websockets.asyncio.client import connect

from pranet_client.async_client import AsyncClient
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pictures import VideoFrame
from service.commands.bench import servers
from service.commands.bench.errors import BenchError
from service.commands.bench.load import Load, Send, closed_loop, open_loop
from service.commands.bench.measure import Answer
from service.rest.websocket_messages import LENGTH


@dataclass(frozen=True)
class Addresses:
    """Where a server listens."""

    url: str  # of REST
    target: str  # of gRPC
    connections: int = 1  # of gRPC


@dataclass(frozen=True)
class Pace:
    """So many frames in flight, or, with ``rate``, so many a second at random times, as many clients send them."""

    concurrency: int
    rate: float | None = None

    def load(self, send: Send, images: Sequence[bytes]) -> Load:
        """Return the load that sends pictures one by one."""
        if self.rate is None:
            return partial(closed_loop, send, images, self.concurrency)
        return partial(open_loop, send, images, self.rate, poisson=True)


Connect = Callable[[AsyncExitStack, Addresses, Sequence[bytes], Pace], Awaitable[Load]]
ONE_BY_ONE = ("rest", "grpc")  # a request for each frame, so that a rate can be kept


class _Connection(asyncio.Protocol):
    """An HTTP/1.1 connection for one request at a time.

    Where there are no other cores, the client shares those of the server. This one takes some 0.1 ms for a frame; httpx
    would take as much as the server.
    """

    def __init__(self, host: str) -> None:
        self._head = f"POST /segment HTTP/1.1\r\nhost: {host}\r\ncontent-length: %d\r\n\r\n".encode()
        self._parser = httptools.HttpResponseParser(self)
        self._body = bytearray()
        self._answered: asyncio.Future[None] | None = None

    async def send(self, image: bytes) -> None:
        """Send a picture and wait for its mask; raise BenchError unless the answer is a PNG."""
        if self.transport.is_closing():
            raise BenchError("the server closed the connection")
        self._answered = asyncio.get_running_loop().create_future()
        self._body.clear()
        self.transport.writelines((self._head % len(image), image))
        await self._answered
        if not self._body.startswith(servers.PNG_MAGIC):
            raise BenchError(f"{self._parser.get_status_code()} {self._body[:150].decode(errors='replace')}")

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
        assert self._answered is not None
        self._answered.set_result(None)


async def _rest(stack: AsyncExitStack, at: Addresses, images: Sequence[bytes], pace: Pace) -> Load:
    url = urlsplit(at.url)
    idle = asyncio.Queue[_Connection]()  # in turns: each belongs to one of several processes
    for _ in range(pace.concurrency):
        made = partial(_Connection, url.netloc)
        _, connection = await asyncio.get_running_loop().create_connection(made, url.hostname or "", url.port or 80)
        stack.callback(connection.transport.close)
        idle.put_nowait(connection)

    async def send(image: bytes) -> None:
        connection = await idle.get()
        try:
            await connection.send(image)
        finally:
            idle.put_nowait(connection)

    return pace.load(send, images)


async def _grpc(stack: AsyncExitStack, at: Addresses, images: Sequence[bytes], pace: Pace) -> Load:
    calls = [await stack.enter_async_context(servers.rpc(at.url, at.target)) for _ in range(at.connections)]
    turns = itertools.cycle(calls)
    return pace.load(lambda image: next(turns).send(image), images)


async def _stream(stack: AsyncExitStack, at: Addresses, images: Sequence[bytes], pace: Pace) -> Load:
    client = await stack.enter_async_context(AsyncClient(target=at.target))

    async def load(until: float) -> list[Answer]:
        places, sent, answers = asyncio.Semaphore(pace.concurrency), dict[int, float](), list[Answer]()

        async def frames() -> AsyncIterator[VideoFrame]:
            number = 0
            while time.perf_counter() < until:
                await places.acquire()
                sent[number] = time.perf_counter()
                yield VideoFrame(number, images[number % len(images)], time.monotonic())
                number += 1

        async for reply in client.stream(frames(), pb.StreamConfig(policy=pb.POLICY_EVERY)):
            places.release()
            error = "" if reply.outcome == "answered" else reply.outcome
            answers.append(Answer(sent.pop(reply.frame.frame_id), time.perf_counter(), error))
        return answers

    return load


async def _websocket(stack: AsyncExitStack, at: Addresses, images: Sequence[bytes], pace: Pace) -> Load:
    url = at.url.replace("http", "ws", 1) + "/stream"
    connection = await stack.enter_async_context(connect(url, max_size=None, proxy=None))
    await connection.send(json.dumps({"policy": "every"}))

    async def load(until: float) -> list[Answer]:
        sent, answers, number = dict[int, float](), list[Answer](), 0
        while time.perf_counter() < until or sent:
            while len(sent) < pace.concurrency and time.perf_counter() < until:
                head = json.dumps({"frame_id": number}).encode()
                sent[number] = time.perf_counter()
                await connection.send(LENGTH.pack(len(head)) + head + images[number % len(images)])
                number += 1
            message = await connection.recv()
            assert isinstance(message, bytes)
            (length,) = LENGTH.unpack_from(message)
            answer = json.loads(message[LENGTH.size : LENGTH.size + length])
            error = "" if answer["outcome"] == "answered" else str(answer["outcome"])
            answers.append(Answer(sent.pop(answer["frame_id"]), time.perf_counter(), error))
        return answers

    return load


LOADS: dict[str, Connect] = {"rest": _rest, "grpc": _grpc, "stream": _stream, "websocket": _websocket}
