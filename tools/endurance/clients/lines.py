"""An open stream over gRPC or WebSocket: frames go in, answers and at last an end come out."""

import asyncio
import contextlib
import json
import struct
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from pranet_client.errors import ERROR_METADATA_KEY
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from service.rest.websocket_messages import LENGTH
from tests.support.callers import cause
from tools.endurance.life import Life

DROPS = {pb.DROP_REASON_STALE: "stale", pb.DROP_REASON_DEADLINE: "deadline", pb.DROP_REASON_OVERLOAD: "overload"}
POLICIES = {"latest": pb.POLICY_LATEST, "every": pb.POLICY_EVERY}
LIVE_DEADLINE_MS = 5000  # of a live frame: some are dropped while inference hangs


@dataclass(frozen=True)
class Answer:
    """What the service says of one frame."""

    frame_id: int
    outcome: str
    cause: str = ""
    at: float = field(default_factory=time.monotonic)  # monotonic seconds


@dataclass(frozen=True)
class End:
    """How a stream ended: its status or close code, and the cause; no code if the connection was lost."""

    code: str = ""
    cause: str = ""


class Line(Protocol):
    """One open stream of any transport."""

    transport: str
    normal: str  # code of a stream that ended without an error
    left: str  # code of one whose client left
    drained: str  # code of one that a process ends which is told to end

    async def send(self, frame_id: int, picture: bytes) -> None: ...
    async def finish(self) -> None: ...
    def leave(self) -> None: ...
    def answers(self) -> AsyncIterator[Answer | End]: ...


class GrpcLine:
    transport, normal, left, drained = "grpc-stream", "OK", "CANCELLED", "UNAVAILABLE"

    def __init__(self, call: Any) -> None:
        self._call = call

    async def send(self, frame_id: int, picture: bytes) -> None:
        frame = pb.StreamFrame(frame_id=frame_id, capture_time_us=_now_us(), image=picture)
        await self._call.write(pb.StreamRequest(frame=frame))

    async def finish(self) -> None:
        await self._call.done_writing()

    def leave(self) -> None:
        self._call.cancel()

    async def answers(self) -> AsyncIterator[Answer | End]:
        try:
            async for reply in self._call:
                kind = reply.WhichOneof("outcome")
                if kind == "dropped":
                    yield Answer(reply.frame_id, DROPS[reply.dropped.reason])
                else:
                    failed = kind == "error"
                    yield Answer(
                        reply.frame_id, "failed" if failed else "answered", reply.error.cause if failed else ""
                    )
            yield End((await self._call.code()).name)
        except grpc.aio.AioRpcError as error:
            named = dict(error.trailing_metadata() or ()).get(ERROR_METADATA_KEY, "")
            yield End(error.code().name, str(named)) if named else End()
        except asyncio.CancelledError:
            if not self._call.cancelled():
                raise
            yield End()


class SocketLine:
    transport, normal, left, drained = "websocket", "1000", "1001", "1001"

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def send(self, frame_id: int, picture: bytes) -> None:
        head = json.dumps({"frame_id": frame_id, "capture_time_us": _now_us()}).encode()
        await self._socket.send(LENGTH.pack(len(head)) + head + picture)

    async def finish(self) -> None:
        await self._socket.send(json.dumps({"end": True}))

    def leave(self) -> None:
        self._socket.transport.abort()

    async def answers(self) -> AsyncIterator[Answer | End]:
        problem = ""
        try:
            while True:
                message = await self._socket.recv()
                if isinstance(message, str):
                    problem = cause(json.loads(message)["type"])
                    continue
                (size,) = struct.unpack_from("<I", message)
                head = json.loads(message[LENGTH.size : LENGTH.size + size])
                yield Answer(head["frame_id"], head["outcome"], head.get("cause", ""))
        except ConnectionClosed as closed:
            yield End(str(closed.rcvd.code), problem) if closed.rcvd else End()


@contextlib.asynccontextmanager
async def grpc_line(life: Life, policy: str) -> AsyncIterator[Line]:
    call: Any = life.stub.SegmentStream(metadata=life.site.access.metadata())
    try:
        await call.write(
            pb.StreamRequest(config=pb.StreamConfig(policy=POLICIES[policy], deadline_ms=_deadline(policy)))
        )
        yield GrpcLine(call)
    finally:
        call.cancel()


@contextlib.asynccontextmanager
async def socket_line(life: Life, policy: str) -> AsyncIterator[Line]:
    async with connect(
        f"{life.server.url.replace('https', 'wss')}/stream", additional_headers=life.headers, proxy=None,
        ssl=life.site.access._context(), max_size=None, ping_interval=None, close_timeout=1, open_timeout=60,
    ) as socket:  # fmt: skip
        configuration = {"policy": policy} | ({"deadline_ms": ms} if (ms := _deadline(policy)) else {})
        await socket.send(json.dumps(configuration))
        yield SocketLine(socket)


LINES = {"gRPC": grpc_line, "WebSocket": socket_line}
LOST = (grpc.RpcError, ConnectionClosed, InvalidHandshake, OSError, EOFError, asyncio.InvalidStateError)


def _deadline(policy: str) -> int:
    return LIVE_DEADLINE_MS if policy == "latest" else 0


def _now_us() -> int:
    return time.monotonic_ns() // 1000
