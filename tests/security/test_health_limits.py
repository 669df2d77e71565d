"""gRPC health is open to everybody, so that nobody may hold much of the service by it."""

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.rpc import health_limits
from service.rpc.server import AHEAD_BYTES
from tests.support.patching import Patches
from tests.support.serving import PATIENCE, Running, serving

METHODS = {  # whose call is sent without its one message
    "Check": lambda channel: channel.stream_unary("/grpc.health.v1.Health/Check")(),
    "Watch": lambda channel: aiter(channel.stream_stream("/grpc.health.v1.Health/Watch")()),
}
CALLS, ANNOUNCED_BYTES = 6, 2**23
DATA, HEADERS, RESET, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 3, 4, 6, 8  # RFC 9113, section 6
INITIAL_WINDOW_SIZE = 4
END_STREAM = ACK = 1
END_HEADERS = 4


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with serving() as running:
        yield running


async def answered(call: Any) -> bool:
    """Tell whether a call is not refused."""
    try:
        return bool(await call.read())
    except grpc.aio.AioRpcError:
        return False


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    """Return status and cause of a call that is refused, as one answer or instead of the first of many."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await (anext(call) if hasattr(call, "__anext__") else call)
    return refused.value.code(), str(dict(refused.value.trailing_metadata() or ())["pranet-error"])


@pytest.mark.parametrize("name", METHODS)
async def test_a_message_that_does_not_arrive_is_given_up_and_counted(
    name: str, running: Running, patched: Patches
) -> None:
    patched(health_limits, "OPEN_MESSAGE_SECONDS", 0.2)
    async with asyncio.timeout(PATIENCE):
        assert await refusal(METHODS[name](running.channel)) == (grpc.StatusCode.DEADLINE_EXCEEDED, "body-too-slow")
    assert running.metric("pranet_rejected_total", {"reason": "body-too-slow"}) == 1


async def test_a_message_that_is_larger_than_any_question_is_refused(running: Running) -> None:
    check = health_pb2_grpc.HealthStub(running.channel).Check
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await check(health_pb2.HealthCheckRequest(service="a" * 1000))
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
    large = check(health_pb2.HealthCheckRequest(service="a" * 1024))
    assert await refusal(large) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "too-many-bytes")


async def test_a_connection_may_have_so_many_watches_and_another_as_many(running: Running, patched: Patches) -> None:
    patched(health_limits, "MAX_WATCHES", 2)
    request = health_pb2.HealthCheckRequest()
    watch = health_pb2_grpc.HealthStub(running.channel).Watch
    opened = [watch(request) for _ in range(2)]
    assert [(await each.read()).status for each in opened] == [health_pb2.HealthCheckResponse.SERVING] * 2
    assert await refusal(aiter(watch(request))) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "too-many-watches")
    options = [("grpc.use_local_subchannel_pool", 1)]  # else it shares the connection
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.grpc_port}", options) as other:
        assert await health_pb2_grpc.HealthStub(other).Watch(request).read()
    opened[0].cancel()
    async with asyncio.timeout(PATIENCE):  # until the server has heard of it
        while not await answered(watch(request)):  # noqa: ASYNC110 - nobody sets an event for it
            await asyncio.sleep(0.01)


async def test_many_questions_at_once_are_all_answered(running: Running) -> None:
    check = health_pb2_grpc.HealthStub(running.channel).Check
    answers = await asyncio.gather(*(check(health_pb2.HealthCheckRequest()) for _ in range(200)))
    assert {answer.status for answer in answers} == {health_pb2.HealthCheckResponse.SERVING}


def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content


def head(path: bytes) -> bytes:
    """Return the headers of a call, none of them compressed (RFC 7541, section 6.2.2)."""
    fields = {b":method": b"POST", b":scheme": b"http", b":path": path, b":authority": b"pranet"}
    fields |= {b"content-type": b"application/grpc", b"te": b"trailers"}
    return b"".join(bytes((0, len(name))) + name + bytes((len(value),)) + value for name, value in fields.items())


class Withholding:
    """A client of calls whose messages it announces, and sends as far as the server lets it, but for the last bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._initial = self._window = 65_535  # RFC 9113, section 6.9.2
        self._windows = {2 * number + 1: self._initial for number in range(CALLS)}  # of calls that are open
        self._left = dict.fromkeys(self._windows, ANNOUNCED_BYTES - 1)

    @property
    def taken(self) -> int:
        """How many bytes of messages the server has let in."""
        return CALLS * (ANNOUNCED_BYTES - 1) - sum(self._left.values())

    async def run(self, path: bytes) -> None:
        """Return when the server has ended the first call."""
        self._writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0))
        for stream in self._windows:
            self._writer.write(frame(HEADERS, END_HEADERS, stream, head(path)))
            self._writer.write(frame(DATA, 0, stream, struct.pack(">BI", 0, ANNOUNCED_BYTES)))
            self._windows[stream] -= 5
            self._window -= 5
        while len(self._windows) == CALLS:
            self._send()
            await self._writer.drain()
            await self._hear()

    def _send(self) -> None:
        for stream, window in self._windows.items():
            while size := min(16_384, self._left[stream], window, self._window):
                self._writer.write(frame(DATA, 0, stream, bytes(size)))
                window -= size
                self._window -= size
                self._left[stream] -= size
            self._windows[stream] = window

    async def _hear(self) -> None:
        size, kind, flags, stream = struct.unpack(">IBBI", b"\0" + await self._reader.readexactly(9))
        content = await self._reader.readexactly(size)
        if kind == WINDOW_UPDATE and not stream:
            self._window += int.from_bytes(content)
        elif kind == WINDOW_UPDATE and stream in self._windows:
            self._windows[stream] += int.from_bytes(content)
        elif kind == SETTINGS and flags != ACK:
            given = dict(struct.iter_unpack(">HI", content))
            more = given.get(INITIAL_WINDOW_SIZE, self._initial) - self._initial
            self._initial += more
            self._windows = {each: window + more for each, window in self._windows.items()}
            self._writer.write(frame(SETTINGS, ACK, 0))
        elif kind == PING and flags != ACK:
            self._writer.write(frame(PING, ACK, 0, content))
        elif kind == RESET or (kind == HEADERS and flags & END_STREAM):
            self._windows.pop(stream, None)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
async def test_of_messages_that_do_not_end_little_more_than_one_is_held(
    name: str, running: Running, patched: Patches
) -> None:
    patched(health_limits, "OPEN_MESSAGE_SECONDS", 2.0)  # time to send them all, if they were let in
    reader, writer = await asyncio.open_connection("127.0.0.1", running.grpc_port)
    client = Withholding(reader, writer)
    try:
        async with asyncio.timeout(PATIENCE):
            await client.run(b"/grpc.health.v1.Health/" + name.encode())
    finally:
        writer.close()
    assert ANNOUNCED_BYTES - 1 <= client.taken <= ANNOUNCED_BYTES + CALLS * 2 * AHEAD_BYTES
