"""Clients that read their answers slowly, late or never."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc
from websockets.asyncio.client import ClientConnection

from pranet_client.credentials import NO_ACCESS
from pranet_client.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc
from service.pb.inference import open_inference_pb2_grpc as oip_grpc
from tests.support import callers
from tests.support.serving import Running, until
from tests.support.slow_clients.sending import (
    SHORT_SECONDS,
    SIDE,
    frames_over_grpc,
    frames_over_websocket,
    inference,
    inferences,
    meanwhile,
    single,
)
from tests.support.streaming import NARROW

ReadSlowly = Callable[[], Coroutine[Any, Any, None]]


def narrow(port: int, size: int) -> socket.socket:
    """Connect to a port, with few bytes buffered that are not read."""
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    peer.connect(("127.0.0.1", port))
    peer.setblocking(False)
    return peer


@asynccontextmanager
async def asked(it: Running, request: bytes) -> AsyncIterator[socket.socket]:
    """Send a request over REST, and read nothing."""
    with narrow(it.port, 2**16) as peer:
        await asyncio.get_running_loop().sock_sendall(peer, request)
        yield peer


async def read_slowly(peer: socket.socket) -> None:
    """Read to the end of the connection."""
    left = True
    with contextlib.suppress(OSError):
        while left:
            left = bool(await asyncio.get_running_loop().sock_recv(peer, 2**17))
            await asyncio.sleep(SHORT_SECONDS / 10)


@asynccontextmanager
async def answer_over_rest(it: Running) -> AsyncIterator[ReadSlowly]:
    """Have one picture answered, of which the client has read nothing yet."""
    async with asked(it, single(SIDE)) as peer:
        await until(lambda: it.metric("pranet_requests_total", {"transport": "rest", "code": "200"}) == 1)
        await until(lambda: not it.service.calls.unanswered)
        yield partial(read_slowly, peer)


@asynccontextmanager
async def relay(it: Running, options: Any = None) -> AsyncIterator[tuple[grpc.aio.Channel, asyncio.ReadTransport]]:
    """Yield a gRPC channel, and what pauses and resumes to read from the service, before which little is buffered."""
    relaying: list[asyncio.Task[None]] = []
    near: list[asyncio.StreamWriter] = []
    far: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while block := await reader.read(2**16):
            writer.write(block)

    async def relayed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        relaying.append(task)
        far.append(writer)
        near_reader, near_writer = await asyncio.open_connection(sock=narrow(it.grpc_port, 4096))
        near.append(near_writer)
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(pump(reader, near_writer), pump(near_reader, writer))

    async with await asyncio.start_server(relayed, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
                await channel.channel_ready()
                (to_service,) = near
                yield channel, to_service.transport
        finally:
            for writer in (*near, *far):
                writer.transport.abort()
            await asyncio.gather(*relaying)


@asynccontextmanager
async def answer_over_grpc(it: Running) -> AsyncIterator[ReadSlowly]:
    """Have one picture answered with more than the buffers on the way hold, of which nothing was read yet."""

    async def read_now_and_then(transport: asyncio.ReadTransport) -> None:
        while True:
            transport.resume_reading()
            await asyncio.sleep(SHORT_SECONDS / 100)
            transport.pause_reading()
            await asyncio.sleep(SHORT_SECONDS / 3)

    async with relay(it, (("grpc.max_receive_message_length", -1),)) as (channel, transport):
        transport.pause_reading()
        call = oip_grpc.GRPCInferenceServiceStub(channel).ModelInfer(inference("probability"))
        await until(lambda: it.metric("pranet_requests_total", {"transport": "grpc", "code": "OK"}) == 1)
        yield partial(read_now_and_then, transport)
        call.cancel()


@asynccontextmanager
async def stream_over_grpc(
    it: Running, *options: tuple[str, int], sending: Callable[[Any], Coroutine[Any, Any, None]] = frames_over_grpc
) -> AsyncIterator[Any]:
    """Open a stream whose answers are not read: not even the first, which is larger than what is taken up unread."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{it.grpc_port}", (*NARROW, *options)) as channel:
        call = pb_grpc.SegmentationServiceStub(channel).SegmentStream()
        async with meanwhile(sending(call)):
            yield call
            call.cancel()


@asynccontextmanager
async def stream_of_inferences(it: Running) -> AsyncIterator[None]:
    """Open a stream of the Open Inference Protocol whose answers are not read."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{it.grpc_port}", NARROW) as channel:
        call = oip_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer()
        async with meanwhile(inferences(call)):
            yield
            call.cancel()


@asynccontextmanager
async def websocket(it: Running) -> AsyncIterator[ClientConnection]:
    """Open a WebSocket behind which little is buffered; break it off after the block."""
    sock = narrow(it.port, 4096)
    async with callers.socket(it, NO_ACCESS, by_header=True, sock=sock, max_queue=1, compression=None) as opened:
        yield opened
        opened.transport.abort()


@asynccontextmanager
async def stream_over_websocket(it: Running) -> AsyncIterator[None]:
    """Open a stream whose answers are not read."""
    async with websocket(it) as opened, meanwhile(frames_over_websocket(opened)):
        yield
