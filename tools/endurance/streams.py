"""Video streams over gRPC and WebSocket, whose every frame is accounted for."""

import asyncio
import contextlib
import itertools
import json
import struct
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from pranet_client.errors import ERROR_METADATA_KEY
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from service.rest.websocket_messages import LENGTH
from tests.support.callers import cause
from tools.endurance.book import UNCOUNTED, Tally
from tools.endurance.calls import LOST_CAUSES, NOT_REACHED, PICTURES
from tools.endurance.life import Life
from tools.endurance.replies import WORK

DROPS = {pb.DROP_REASON_STALE: "stale", pb.DROP_REASON_DEADLINE: "deadline", pb.DROP_REASON_OVERLOAD: "overload"}
POLICIES = {"latest": pb.POLICY_LATEST, "every": pb.POLICY_EVERY}
LIVE_DEADLINE_MS = 5000  # of a live frame: some are dropped while inference hangs
OUTCOMES = ("answered", "stale", "deadline", "overload", "failed", "abandoned", UNCOUNTED)
LEAVING_SECONDS = 10.0  # within which the service notices that a client has left


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


@dataclass
class Session:
    """One stream from its opening to its end."""

    life: Life
    kind: str
    policy: str
    sent: dict[int, float] = field(default_factory=dict)  # monotonic seconds, by frame
    answered: list[Answer] = field(default_factory=list)
    end: End | None = None
    opened: bool = False
    refused: bool = False  # the connection, so that the service knows nothing of the stream
    has_left: bool = False

    async def run(self, pace: Callable[[], float], seconds: float, *, leaves: bool) -> None:
        """Send frames at a pace for a time; then end the stream, or leave it without a word."""
        line: Line | None = None
        self.began = time.monotonic()
        try:
            async with LINES[self.kind](self.life, self.policy) as line:
                self.opened = True
                receiving = asyncio.create_task(self._receive(line))
                sending = asyncio.create_task(self._send(line, pace, self.began + seconds))
                await asyncio.wait([receiving, sending], return_when=asyncio.FIRST_COMPLETED)
                if sending.done() and not receiving.done():
                    if leaves:
                        self.has_left = True
                        line.leave()
                    else:
                        with contextlib.suppress(*LOST):
                            await line.finish()
                await receiving
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        except LOST as error:
            self.refused = isinstance(error, ConnectionRefusedError)
        self.ended = time.monotonic() + LEAVING_SECONDS * self.has_left

    async def _send(self, line: Line, pace: Callable[[], float], until: float) -> None:
        with contextlib.suppress(*LOST):
            for frame_id in itertools.count(1):
                if time.monotonic() >= until or self.life.over.is_set():
                    return
                self.sent[frame_id] = time.monotonic()
                await line.send(frame_id, next(PICTURES))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.life.over.wait(), pace())

    async def _receive(self, line: Line) -> None:
        async for each in line.answers():
            if isinstance(each, End):
                self.end = each
            else:
                self.answered.append(each)

    def settle(self, tally: Tally) -> None:
        """Record what became of the stream and of each of its frames."""
        line = {"gRPC": GrpcLine, "WebSocket": SocketLine}[self.kind]
        name = f"{self.policy} stream over {self.kind}"
        end = self.end or End()
        is_known = bool(end.code) and not self.has_left
        self._note_call(name, line, end, is_known=is_known, tally=tally)
        if [each.frame_id for each in self.answered] != list(self.sent)[: len(self.answered)]:
            self.life.broken.append(f"the answers of {name} are not those of its frames in order")
        for each in self.answered:
            self._note_answer(name, each, tally)
        open_frames = list(self.sent)[len(self.answered) :]
        if open_frames and is_known and end.code == line.normal:
            self.life.broken.append(f"{len(open_frames)} frames of {name} have no answer")
        for frame_id in open_frames:
            self._note_open(name, frame_id, is_drained=is_known and end.cause == "draining", tally=tally)

    def _note_call(self, name: str, line: type, end: End, *, is_known: bool, tally: Tally) -> None:
        note, life = self.life.book.note, self.life
        if is_known:
            note(name, self.began, self.ended, **{line.transport: end.code})
            note(f"cause of {name}", self.began, self.ended, rejected=end.cause or UNCOUNTED)
            tally.add(name, f"ended: {end.cause or 'normally'}")
            if end.code != line.normal and not (end.cause == "draining" and life.is_ending(self.began)):
                life.broken.append(f"one {name} ends with {end.code} {end.cause}")
        elif self.has_left:
            codes = {line.left, line.normal} | ({line.drained, UNCOUNTED} if life.ending else set())
            note(name, self.began, self.ended, **{line.transport: codes})
            causes = LOST_CAUSES if life.ending else ("client-left", UNCOUNTED)
            note(f"cause of {name}", self.began, self.ended, rejected=causes)
            tally.add(name, "left by the client")
        elif self.refused and life.ending:
            tally.add(name, NOT_REACHED)
        else:
            codes = (line.normal, line.left, line.drained, UNCOUNTED)
            note(name, self.began, self.ended, **{line.transport: codes})
            note(f"cause of {name}", self.began, self.ended, rejected=LOST_CAUSES)
            cut = bool(life.ending) or life.server.process.poll() is not None
            tally.add(name, f"cut off by {life.ending or 'an end'}" if cut else "lost")
            if not cut:
                life.broken.append(f"one {name} is lost")

    def _note_answer(self, name: str, answer: Answer, tally: Tally) -> None:
        began, ended, note = self.sent[answer.frame_id], answer.at, self.life.book.note
        work = {"answered": "answered", "overload": "failed", "failed": "failed"}.get(answer.outcome, UNCOUNTED)
        note(f"frame of {name}", began, ended, received="frame", frames=answer.outcome, work=work)
        note(f"cause of a frame of {name}", began, ended, rejected=answer.cause or UNCOUNTED)
        tally.add(f"frames of {name}", answer.outcome)
        is_late = self.policy == "latest" and answer.cause == "deadline-exceeded"  # it had its turn before
        if answer.outcome in ("failed", "overload") and not is_late:
            self.life.broken.append(f"a frame of {name} is {answer.outcome}: {answer.cause}")

    def _note_open(self, name: str, frame_id: int, *, is_drained: bool, tally: Tally) -> None:
        began, note = self.sent[frame_id], self.life.book.note
        if is_drained:  # each frame that was received is answered, so these were not
            tally.add(f"frames of {name}", "not received by a process that ended")
            return
        note(f"frame of {name}", began, self.ended, received=("frame", UNCOUNTED), frames=OUTCOMES, work=WORK)
        tally.add(f"frames of {name}", "left by the client" if self.has_left else f"cut off by {self.life.ending}")


def _deadline(policy: str) -> int:
    return LIVE_DEADLINE_MS if policy == "latest" else 0


def _now_us() -> int:
    return time.monotonic_ns() // 1000
