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

import httpx
from websockets.asyncio.client import connect

from pranet_client.async_client import AsyncClient
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pictures import VideoFrame
from service.commands.bench import servers
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


async def _rest(stack: AsyncExitStack, at: Addresses, images: Sequence[bytes], pace: Pace) -> Load:
    send = await stack.enter_async_context(servers.lean_http(at.url, pace.concurrency))
    messages = [servers.message(httpx.Request("POST", at.url + "/segment", content=image)) for image in images]
    return pace.load(send, messages)


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
