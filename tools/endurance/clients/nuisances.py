"""Clients that leave in the middle, send in drops, or never read, and what the service may have counted for them."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc
from tests.support.pictures import SAMPLES
from tests.support.streaming import NARROW
from tools.endurance.book import UNCOUNTED, Tally
from tools.endurance.clients.calls import DEADLINE_SECONDS, Kind
from tools.endurance.clients.replies import WORK, Reply, of_http
from tools.endurance.clients.streams import LEAVING_SECONDS, OUTCOMES
from tools.endurance.life import Life

IMAGE = SAMPLES[0].read_bytes()
DROPS, DROP_SECONDS = 20, 0.4  # of a body that comes slowly
HURRY_MS = 2000  # timeout of a request whose body comes too slowly for it
AWAY_SECONDS = 0.3  # after which a client leaves
UNREAD_SECONDS = 35.0  # the service ends a stream whose answer is not read within 30 s
UNREAD_FRAMES = 4
HEAD = "POST /segment{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\nAuthorization: {token}\r\n\r\n"


async def _in_drops() -> AsyncIterator[bytes]:
    size = -(-len(IMAGE) // DROPS)
    for start in range(0, len(IMAGE), size):
        yield IMAGE[start : start + size]
        await asyncio.sleep(DROP_SECONDS)


def _trickling(timeout_ms: int) -> Callable[[Life], Awaitable[Reply]]:
    async def ask(life: Life) -> Reply:
        headers = life.headers | {"x-request-timeout-ms": str(timeout_ms)}
        return of_http(await life.rest.post("/segment", content=_in_drops(), headers=headers))

    return ask


TRICKLING = Kind("REST, body in drops", "rest", _trickling(round(DEADLINE_SECONDS * 1e3)))
# The second if the service's event loop was late: it ends a call a moment after its deadline, whatever it waits for.
ENDS_TOO_SLOW = frozenset({"body-too-slow", "deadline-exceeded"})
TOO_SLOW = Kind("REST, body too slow", "rest", _trickling(HURRY_MS), expected=ENDS_TOO_SLOW)


@contextlib.asynccontextmanager
async def _connected(life: Life, part: float, query: str = "") -> AsyncIterator[None]:
    """Send a request up to a part of its body over a connection of its own; break it at the end of the block."""
    _, _, port = life.server.url.rpartition(":")
    reader, writer = await asyncio.open_connection("127.0.0.1", int(port), ssl=life.site.access._context(), limit=1)
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    try:
        head = HEAD.format(query=query, length=len(IMAGE), token=life.headers["authorization"])
        writer.write(head.encode() + IMAGE[: int(part * len(IMAGE))])
        await writer.drain()
        yield
    finally:
        writer.transport.abort()


async def _leaves(life: Life, tally: Tally, name: str, seconds: float, part: float, query: str = "") -> None:
    began = time.monotonic()
    try:
        async with _connected(life, part, query):
            await asyncio.sleep(seconds)
    except OSError:
        tally.add(name, f"cut off by {life.ending}")
        if not life.ending:
            life.breaks(f"a request ({name}) cannot be sent")
    ended = time.monotonic() + LEAVING_SECONDS
    whole = part == 1
    codes = {"499", *(["200"] if whole else [])} | ({"503", UNCOUNTED} if life.ending else set())
    causes = {"client-left", *([UNCOUNTED] if whole or life.ending else []), *(["draining"] if life.ending else [])}
    life.book.note(name, began, ended, rest=codes)
    life.book.note(f"cause of {name}", began, ended, rejected=causes)
    life.book.note(f"frame of {name}", began, ended, work=WORK if whole else UNCOUNTED)
    tally.add(name, "left by the client")


async def leaves_in_body(life: Life, tally: Tally) -> None:
    await _leaves(life, tally, "REST, leaves in the body", AWAY_SECONDS, 0.5)


async def leaves_before_answer(life: Life, tally: Tally) -> None:
    await _leaves(life, tally, "REST, leaves before the answer", AWAY_SECONDS, 1)


async def never_reads(life: Life, tally: Tally) -> None:
    await _leaves(life, tally, "REST, never reads", UNREAD_SECONDS, 1, "?output=overlay")


async def cancels(life: Life, tally: Tally) -> None:
    name, began = "gRPC, cancels", time.monotonic()
    call: Any = life.stub.Segment(pb.SegmentRequest(image=IMAGE), metadata=life.site.access.metadata())
    await asyncio.sleep(AWAY_SECONDS)
    call.cancel()
    ended = time.monotonic() + LEAVING_SECONDS
    codes, causes = {"CANCELLED", "OK", UNCOUNTED}, {"client-left", UNCOUNTED}
    if life.ending:
        codes, causes = codes | {"UNAVAILABLE"}, causes | {"draining"}
    life.book.note(name, began, ended, grpc=codes)
    life.book.note(f"cause of {name}", began, ended, rejected=causes)
    life.book.note(f"frame of {name}", began, ended, work=WORK)
    tally.add(name, "left by the client")


async def never_reads_a_stream(life: Life, tally: Tally) -> None:
    name, began = "gRPC stream, never reads", time.monotonic()
    async with life.site.access.channel(life.server.grpc_address, NARROW) as channel:
        call: Any = pb_grpc.SegmentationServiceStub(channel).SegmentStream(metadata=life.site.access.metadata())
        config = pb.StreamConfig(policy=pb.POLICY_EVERY, output=pb.OUTPUT_OVERLAY)
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
            await call.write(pb.StreamRequest(config=config))
            for number in range(UNREAD_FRAMES):
                await call.write(pb.StreamRequest(frame=pb.StreamFrame(frame_id=number, image=IMAGE)))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(UNREAD_SECONDS):
                await life.over.wait()
        call.cancel()
    ended, ending = time.monotonic() + LEAVING_SECONDS, {"UNAVAILABLE", UNCOUNTED} if life.ending else set()
    life.book.note(name, began, ended, grpc_stream={"DEADLINE_EXCEEDED", "CANCELLED"} | ending)
    causes = {"read-too-slowly", "client-left"} | ({"draining", UNCOUNTED} if life.ending else set())
    life.book.note(f"cause of {name}", began, ended, rejected=causes)
    for _ in range(UNREAD_FRAMES):
        frames = OUTCOMES
        life.book.note(f"frame of {name}", began, ended, received=("frame", UNCOUNTED), frames=frames, work=WORK)
    tally.add(name, "left by the client")


VANISHING = (leaves_in_body, leaves_before_answer, cancels, never_reads, never_reads_a_stream)
