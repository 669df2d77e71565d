"""The end of the service waits for work, but not for clients that keep it waiting."""

import asyncio
import contextlib
import errno
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from threading import Event

import grpc
import pytest
from PIL import Image

from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from service import drain, runtime
from service.clients import awaited
from service.clients.awaited import READER, REQUEST
from service.clients.connections import Connection
from service.http import content_encoding
from service.readiness import Phase
from service.rpc.server import CLIENT_PING_SECONDS
from tests.support.patching import Patches
from tests.support.pictures import encoded
from tests.support.serving import PATIENCE, Running, connected, counted, serving, until
from tests.support.slow_clients.reading import asked, stream_over_grpc, stream_over_websocket
from tests.support.slow_clients.sending import SHORT_SECONDS, SIDE, archive, frames_without_end, trickle

PING_SECONDS = 1.2 * CLIENT_PING_SECONDS  # as often as a client may
DOT = encoded(Image.new("RGB", (1, 1)))


@contextlib.asynccontextmanager
async def half_a_picture(it: Running) -> AsyncIterator[None]:
    async with connected(it) as (_, writer):
        writer.write(b"POST /segment HTTP/1.1\r\nHost: pranet\r\nContent-Length: 9\r\n\r\nhalf")
        yield


@contextlib.asynccontextmanager
async def no_message(it: Running) -> AsyncIterator[grpc.aio.StreamUnaryCall[pb.SegmentRequest, bytes]]:
    """Open a unary call as if its one message were late."""
    method = "/pranet.v1.SegmentationService/Segment"
    call = it.channel.stream_unary(method, pb.SegmentRequest.SerializeToString)()
    yield call
    call.cancel()


@contextlib.asynccontextmanager
async def unread_archive(it: Running) -> AsyncIterator[None]:
    async with asked(it, archive(8, 900)):
        yield


@contextlib.asynccontextmanager
async def unread_archive_of_one(it: Running) -> AsyncIterator[None]:
    async with asked(it, archive(1, SIDE)):
        yield


STALLING = {
    half_a_picture: (REQUEST, "rest", "503"),
    no_message: (REQUEST, "grpc", "UNAVAILABLE"),
    stream_over_grpc: (READER, "grpc-stream", "UNAVAILABLE"),
    unread_archive: (READER, "rest", "503"),
    unread_archive_of_one: (READER, "rest", "503"),
    stream_over_websocket: (READER, "websocket", "1001"),
}


def has_stalled(it: Running) -> bool:
    return any(call.awaited.is_stalled for call in it.service.calls.unanswered.values())


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("stalls", STALLING)
async def test_a_drain_waits_for_work_but_not_for_who_keeps_it_waiting(
    stalls: Callable[[Running], AbstractAsyncContextManager[object]],
    patched: Patches,
    caplog: pytest.LogCaptureFixture,
) -> None:
    patched(runtime, "UNREAD_SECONDS", 10 * PATIENCE)
    undone, transport, code = STALLING[stalls]
    async with (
        contextlib.AsyncExitStack() as stack,
        asyncio.timeout(PATIENCE),
        serving(drain_seconds=10 * PATIENCE, request_timeout_ms=10_000 * PATIENCE) as it,
    ):
        await stack.enter_async_context(stalls(it))  # it stalls until the service has ended
        await until(lambda: has_stalled(it))
        assert await drain.drain(it.service) == 0
        assert counted(it)[0] == {(transport, code): 1}
    (told,) = [each.getMessage() for each in caplog.records if "cut off" in each.getMessage()]
    assert told.endswith(f"whose clients {undone}: 1; the service did not hold them up")


@contextlib.asynccontextmanager
async def pinging(it: Running) -> AsyncIterator[None]:
    options = {"keepalive_time_ms": round(PING_SECONDS * 1e3), "http2.max_pings_without_data": 0}
    async with stream_over_grpc(it, *((f"grpc.{name}", value) for name, value in options.items())):
        yield


@contextlib.asynccontextmanager
async def sending_on(it: Running) -> AsyncIterator[None]:
    async with stream_over_grpc(it, sending=frames_without_end):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("active", [pinging, sending_on])
async def test_a_drain_gives_up_a_client_that_reads_nothing_although_its_connection_stands_not_still(
    active: Callable[[Running], AbstractAsyncContextManager[None]], patched: Patches, caplog: pytest.LogCaptureFixture
) -> None:
    """It takes what HTTP/2 sends past the answer that it does not read."""
    patched(awaited, "STALLED_SECONDS", 4 * PING_SECONDS)
    patched(drain, "LOOK_SECONDS", PING_SECONDS / 2)
    patched(runtime, "UNREAD_SECONDS", 10 * PATIENCE)
    async with asyncio.timeout(2 * PATIENCE), serving(drain_seconds=PATIENCE) as it, active(it):
        await until(lambda: has_stalled(it))
        assert await drain.drain(it.service) == 0
    assert f"whose clients {READER}: 1;" in caplog.text


@pytest.mark.usefixtures("impatient")
async def test_a_drain_waits_for_who_sends_slowly(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as it, connected(it) as (reader, writer):
        writer.write(b"POST /segment HTTP/1.1\r\nHost: pranet\r\nContent-Length: %d\r\n\r\n" % len(DOT))
        await until(lambda: bool(it.service.calls.unanswered))
        draining = asyncio.create_task(drain.drain(it.service))
        await trickle(writer, DOT)
        assert b" 200 " in await reader.readline()
        assert await draining == 0
    assert "cut off" not in caplog.text


@pytest.mark.usefixtures("impatient")
async def test_a_message_on_its_way_has_its_time_from_the_begin_of_the_drain(caplog: pytest.LogCaptureFixture) -> None:
    async with asyncio.timeout(PATIENCE), serving() as it, no_message(it) as call:
        await until(lambda: has_stalled(it))
        draining = asyncio.create_task(drain.drain(it.service))
        await until(lambda: it.service.readiness.phase is Phase.DRAINING)
        await call.write(pb.SegmentRequest(image=DOT))
        await call.done_writing()
        assert await call
        assert await draining == 0
    assert "cut off" not in caplog.text


@pytest.mark.usefixtures("impatient")
async def test_a_drain_takes_the_time_to_pack_an_answer_for_work(
    patched: Patches, caplog: pytest.LogCaptureFixture
) -> None:
    usual, begun, goes_on = content_encoding.Packer._packed, Event(), Event()

    def slowly(packer: content_encoding.Packer, body: bytes, more: bool) -> bytes:
        begun.set()
        goes_on.wait(PATIENCE)
        return usual(packer, body, more)

    for name in ("LEAST_PACKED_BYTES", "THREAD_BYTES"):
        patched(content_encoding, name, 1)
    patched(content_encoding.Packer, "_packed", slowly)
    async with asyncio.timeout(PATIENCE), serving() as it:
        asked = asyncio.create_task(it.rest.post("/segment?output=json", content=DOT))
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        draining = asyncio.create_task(drain.drain(it.service))
        await asyncio.sleep(2 * SHORT_SECONDS)  # the time whose passing must not matter
        goes_on.set()
        assert (await asked).status_code == 200
        assert await draining == 0
    assert "cut off" not in caplog.text


async def test_a_drain_of_a_service_without_work_does_not_wait_for_refusals_to_be_read() -> None:
    moments = itertools.count()

    def written_to_all_the_time() -> Iterator[Connection]:
        yield Connection("client", 100 * next(moments), 100, 0, had_work=True, abort=lambda: None)

    async with asyncio.timeout(PATIENCE), serving(drain_seconds=10 * PATIENCE) as it:
        it.service.calls.sources.append(written_to_all_the_time)
        assert await drain.drain(it.service) == 0


async def test_a_drain_goes_on_without_a_free_file_descriptor(patched: Patches) -> None:
    def exhausted(path: str) -> list[str]:
        raise OSError(errno.EMFILE, "Too many open files", path)

    async with asyncio.timeout(PATIENCE), serving() as it:
        patched("service.clients.connections.os", "listdir", exhausted)
        assert await drain.drain(it.service) == 0
