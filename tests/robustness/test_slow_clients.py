"""Clients that dawdle, on purpose or not, are given up, and hold nothing of the service meanwhile."""

import asyncio
import contextlib
import errno
import itertools
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from struct import pack
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image
from websockets.asyncio.client import ClientConnection

from pranet_client.credentials import NO_ACCESS
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc
from service import drain, runtime
from service.clients import awaited
from service.clients.awaited import READER, REQUEST
from service.clients.connections import Connection
from service.http import protocol as http_protocol
from service.http import server as http_server
from service.http.protocol import MAX_HEAD_BYTES
from service.pb.inference import open_inference_pb2 as oip
from service.pb.inference import open_inference_pb2_grpc as oip_grpc
from service.readiness import Phase
from service.rest import websocket
from service.rest.websocket_messages import LENGTH
from service.rpc import call as rpc_call
from tests.support import callers
from tests.support.patching import Patches
from tests.support.pictures import encoded, red_box
from tests.support.predictors import GatedPredictor
from tests.support.serving import PATIENCE, Running, connected, counted, serving, until
from tests.support.streaming import NARROW, replies, status
from tests.support.websocket import packed

SHORT_SECONDS = 0.3
SIDE = 2048  # pixels, of a small file whose mask has 512 KiB
LARGE = encoded(red_box(SIDE, SIDE, (0, 0, SIDE, SIDE)))
FRAMES = 100  # far more answers than any buffer on the way holds
GET = b"GET /livez HTTP/1.1\r\nHost: pranet\r\n"


@pytest.fixture(autouse=True)
def hurried(patched: Patches) -> None:
    for name in ("HEAD_SECONDS", "DISCARD_SECONDS"):
        patched(http_protocol, name, SHORT_SECONDS)
    patched(runtime, "UNREAD_SECONDS", SHORT_SECONDS)


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with serving() as running:
        yield running


async def refusal(reader: asyncio.StreamReader) -> tuple[int, str]:
    """Read one answer to the end of the connection: its status and the tail of its type."""
    answer = b""
    with contextlib.suppress(ConnectionResetError):  # what comes after the end is answered so
        while block := await reader.read(2**16):
            answer += block
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["type"].removeprefix("urn:pranet:error:")


async def trickle(writer: asyncio.StreamWriter, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        for byte in data:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(SHORT_SECONDS / 10)


async def test_a_connection_that_says_nothing_is_closed(running: Running) -> None:
    async with connected(running) as (reader, _):
        assert await reader.read() == b""


async def test_a_head_that_comes_byte_by_byte_is_given_up(running: Running) -> None:
    async with connected(running) as (reader, writer):
        sending = asyncio.create_task(trickle(writer, GET + b"X-Slow: " + b"a" * 1000))
        assert await refusal(reader) == (408, "head-too-slow")
        sending.cancel()


async def test_a_second_head_on_a_kept_connection_has_no_more_time_than_the_first(running: Running) -> None:
    async with connected(running) as (reader, writer):
        writer.write(GET + b"\r\n")
        assert (await reader.readuntil(b"}")).endswith(b'{"status":"alive"}')
        writer.write(GET)
        assert await refusal(reader) == (408, "head-too-slow")


async def test_empty_lines_between_requests_keep_no_connection_open(running: Running) -> None:
    async with connected(running) as (reader, writer):
        writer.write(GET + b"\r\n")
        await reader.readuntil(b"}")
        writer.write(b"\r\n")
        assert await refusal(reader) == (408, "head-too-slow")


async def test_an_idle_connection_between_requests_is_kept(running: Running) -> None:
    async with connected(running) as (reader, writer):
        for _ in range(2):
            writer.write(GET + b"\r\n")
            await reader.readuntil(b"}")
            await asyncio.sleep(2 * SHORT_SECONDS)  # the time whose passing must not matter


async def test_what_nobody_reads_any_more_has_to_end_too(running: Running) -> None:
    async with connected(running) as (reader, writer):
        writer.write(
            b"POST /segment HTTP/1.1\r\nHost: pranet\r\nContent-Type: text/plain\r\nContent-Length: 999\r\n\r\n"
        )
        sending = asyncio.create_task(trickle(writer, b"a" * 1000))
        assert b" 415 " in await reader.readline()
        with contextlib.suppress(ConnectionResetError):  # what comes after the end is answered so
            await reader.read()  # to the end: the connection is closed
        sending.cancel()


@pytest.mark.parametrize("complete", [True, False])
async def test_a_head_that_is_too_large_is_refused(complete: bool, running: Running) -> None:
    async with connected(running) as (reader, writer):
        writer.write(GET + b"X-Large: " + b"a" * MAX_HEAD_BYTES + (b"\r\n\r\n" if complete else b""))
        assert await refusal(reader) == (431, "head-too-large")


async def test_a_large_address_is_part_of_the_head(running: Running) -> None:
    async with connected(running) as (reader, writer):
        writer.write(b"GET /" + b"a" * MAX_HEAD_BYTES + b" HTTP/1.1\r\nHost: pranet\r\n\r\n")
        assert await refusal(reader) == (431, "head-too-large")


def established(port: int) -> int:
    """Count this machine's open connections whose near end is ``port`` (proc(5), state 01)."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


@pytest.mark.slow
async def test_the_kernel_gives_up_who_never_reads_an_answer(patched: Patches) -> None:
    patched(http_server, "UNREAD_SECONDS", SHORT_SECONDS)
    noise = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (1800, 1800, 3), np.uint8)), "JPEG")
    async with serving() as it:
        with socket.socket() as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.connect(("127.0.0.1", it.port))
            head = f"POST /segment?output=overlay HTTP/1.1\r\nHost: pranet\r\nContent-Length: {len(noise)}\r\n\r\n"
            await asyncio.to_thread(peer.sendall, head.encode() + noise)
            await until(lambda: it.metric("pranet_requests_total", {"transport": "rest", "code": "200"}) == 1)
            await until(lambda: established(it.port) == 0)


async def stops_reading(it: Running, writer: asyncio.StreamWriter, reader: asyncio.StreamReader) -> None:
    """Ask for more than the buffers on the way hold, and wait until the service gets nothing more into them."""
    writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: pranet\r\n\r\n" * 600)
    writer.transport.pause_reading()
    answered: list[float] = []

    def is_stuck() -> bool:
        answered.append(it.metric("pranet_requests_total", {"transport": "rest", "code": "200"}))
        return answered[-1] > 0 and len(answered) > 30 and answered[-30] == answered[-1]

    await until(is_stuck)


async def sends_no_body(it: Running, writer: asyncio.StreamWriter, reader: asyncio.StreamReader) -> None:
    writer.write(b"POST /v2/repository/index HTTP/1.1\r\nHost: pranet\r\nContent-Length: 9\r\n")
    writer.write(b"Expect: 100-continue\r\n\r\n")
    assert b" 100 " in await reader.readline()


@pytest.mark.parametrize("dawdle", [stops_reading, sends_no_body])
async def test_who_dawdles_without_work_does_not_hold_up_the_end_of_the_service(
    dawdle: Callable[[Running, asyncio.StreamWriter, asyncio.StreamReader], Awaitable[None]],
) -> None:
    async with (
        contextlib.AsyncExitStack() as stack,
        asyncio.timeout(PATIENCE),
        serving(drain_seconds=10 * PATIENCE) as it,
    ):
        reader, writer = await stack.enter_async_context(connected(it))  # it stays open while the service ends
        await dawdle(it, writer, reader)
        it.service.readiness.enter(Phase.DRAINING)


async def sends_half_a_picture(it: Running, stack: contextlib.AsyncExitStack) -> None:
    _, writer = await stack.enter_async_context(connected(it))
    writer.write(b"POST /segment HTTP/1.1\r\nHost: pranet\r\nContent-Length: 9\r\n\r\nhalf")


async def sends_no_message(it: Running, stack: contextlib.AsyncExitStack) -> None:
    stack.callback(it.channel.stream_unary("/pranet.v1.SegmentationService/Segment")().cancel)


async def reads_no_answer(it: Running, stack: contextlib.AsyncExitStack) -> None:
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{it.grpc_port}", NARROW))
    call = pb_grpc.SegmentationServiceStub(channel).SegmentStream()
    stack.callback(asyncio.create_task(_send(call)).cancel)
    stack.callback(call.cancel)


async def reads_no_answer_of_an_archive(it: Running, stack: contextlib.AsyncExitStack) -> None:
    _, writer = await stack.enter_async_context(connected(it))
    writer.transport.pause_reading()
    writer.write(archive(8, 900))


async def reads_no_answer_of_an_archive_of_one(it: Running, stack: contextlib.AsyncExitStack) -> None:
    _, writer = await stack.enter_async_context(connected(it))
    writer.transport.pause_reading()
    writer.write(archive(1, SIDE))


def noise(side: int) -> bytes:
    """Draw a picture of noise, whose overlay has some 2 bytes for each pixel."""
    pixels = np.random.default_rng(0).integers(0, 64, (side, side, 3), np.uint8)
    pixels[..., 0] = 255  # red, which is the polyp of the fake predictor
    return encoded(Image.fromarray(pixels), "JPEG")


def archive(pictures: int, side: int) -> bytes:
    """Make a request for overlays of pictures of noise."""
    picture = noise(side)
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + picture + b"\r\n"
    body = part * pictures + b"--b--\r\n"
    head = b"POST /segment/batch?output=overlay HTTP/1.1\r\nHost: pranet\r\nContent-Length: %d\r\n" % len(body)
    return head + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + body


async def reads_no_answer_of_a_websocket(it: Running, stack: contextlib.AsyncExitStack) -> None:
    opened = await stack.enter_async_context(narrow(it))
    stack.callback(opened.transport.abort)
    stack.callback(asyncio.create_task(_send_over(opened)).cancel)


STALLING = {
    sends_half_a_picture: (REQUEST, "rest", "503"),
    sends_no_message: (REQUEST, "grpc", "UNAVAILABLE"),
    reads_no_answer: (READER, "grpc-stream", "UNAVAILABLE"),
    reads_no_answer_of_an_archive: (READER, "rest", "503"),
    reads_no_answer_of_an_archive_of_one: (READER, "rest", "503"),
    reads_no_answer_of_a_websocket: (READER, "websocket", "1001"),
}


@pytest.mark.slow
@pytest.mark.parametrize("stalls", STALLING)
async def test_a_drain_waits_for_work_but_not_for_who_keeps_it_waiting(
    stalls: Callable[[Running, contextlib.AsyncExitStack], Awaitable[None]],
    patched: Patches,
    caplog: pytest.LogCaptureFixture,
) -> None:
    patched(awaited, "STALLED_SECONDS", SHORT_SECONDS)
    patched(drain, "LOOK_SECONDS", SHORT_SECONDS)
    patched(runtime, "UNREAD_SECONDS", 10 * PATIENCE)
    undone, transport, code = STALLING[stalls]
    async with (
        contextlib.AsyncExitStack() as stack,
        asyncio.timeout(PATIENCE),
        serving(drain_seconds=10 * PATIENCE, request_timeout_ms=10_000 * PATIENCE) as it,
    ):
        await stalls(it, stack)
        await until(lambda: any(call.awaited.is_stalled for call in it.service.calls.unanswered.values()))
        assert await drain.drain(it.service) == 0
        assert counted(it)[0] == {(transport, code): 1}
    (told,) = [each.getMessage() for each in caplog.records if "cut off" in each.getMessage()]
    assert told.endswith(f"whose clients {undone}: 1; the service did not hold them up")


async def test_a_drain_waits_for_who_sends_slowly(patched: Patches, caplog: pytest.LogCaptureFixture) -> None:
    patched(awaited, "STALLED_SECONDS", SHORT_SECONDS)
    patched(drain, "LOOK_SECONDS", SHORT_SECONDS / 10)
    picture = encoded(Image.new("RGB", (1, 1)))
    async with serving() as it, connected(it) as (reader, writer):
        writer.write(b"POST /segment HTTP/1.1\r\nHost: pranet\r\nContent-Length: %d\r\n\r\n" % len(picture))
        await until(lambda: bool(it.service.calls.unanswered))
        draining = asyncio.create_task(drain.drain(it.service))
        await trickle(writer, picture)
        assert b" 200 " in await reader.readline()
        assert await draining == 0
    assert "cut off" not in caplog.text


async def test_a_message_on_its_way_has_its_time_from_the_begin_of_the_drain(
    patched: Patches, caplog: pytest.LogCaptureFixture
) -> None:
    patched(awaited, "STALLED_SECONDS", SHORT_SECONDS)
    method = "/pranet.v1.SegmentationService/Segment"
    async with asyncio.timeout(PATIENCE), serving() as it:
        call = it.channel.stream_unary(method, pb.SegmentRequest.SerializeToString)()
        await until(lambda: any(call.awaited.is_stalled for call in it.service.calls.unanswered.values()))
        draining = asyncio.create_task(drain.drain(it.service))
        await until(lambda: it.service.readiness.phase is Phase.DRAINING)
        await call.write(pb.SegmentRequest(image=encoded(Image.new("RGB", (1, 1)))))
        await call.done_writing()
        assert await call
        assert await draining == 0
    assert "cut off" not in caplog.text


@pytest.mark.slow
async def test_a_drain_waits_for_who_reads_one_answer_slowly(
    patched: Patches, caplog: pytest.LogCaptureFixture
) -> None:
    patched(awaited, "STALLED_SECONDS", SHORT_SECONDS)
    patched(drain, "LOOK_SECONDS", SHORT_SECONDS / 10)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(PATIENCE), serving(drain_seconds=10 * PATIENCE) as it:
        with socket.socket() as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
            peer.connect(("127.0.0.1", it.port))
            peer.setblocking(False)
            await loop.sock_sendall(peer, archive(1, SIDE))
            await until(lambda: any(call.awaited.what == READER for call in it.service.calls.unanswered.values()))
            draining = asyncio.create_task(drain.drain(it.service))
            answer = b""
            while not answer.endswith(b"\r\n0\r\n\r\n") and (block := await loop.sock_recv(peer, 2**17)):
                answer = answer[-8:] + block
                await asyncio.sleep(SHORT_SECONDS / 10)
        assert answer.endswith(b"\r\n0\r\n\r\n")
        assert await draining == 0
    assert "cut off" not in caplog.text


@contextlib.asynccontextmanager
async def unread_answer(it: Running) -> AsyncIterator[socket.socket]:
    """Have one picture answered, of which the client has read nothing yet."""
    async with asked(it) as peer:
        await until(lambda: it.metric("pranet_requests_total", {"transport": "rest", "code": "200"}) == 1)
        await until(lambda: not it.service.calls.unanswered)
        yield peer


@contextlib.asynccontextmanager
async def asked(it: Running) -> AsyncIterator[socket.socket]:
    """Ask for one picture, and read nothing."""
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        peer.connect(("127.0.0.1", it.port))
        peer.setblocking(False)
        request = archive(1, SIDE).replace(b"/batch", b"")
        await asyncio.get_running_loop().sock_sendall(peer, request)
        yield peer


async def read_slowly(peer: socket.socket) -> int:
    """Read to the end of the connection; return the number of bytes."""
    size = 0
    with contextlib.suppress(OSError):
        while block := await asyncio.get_running_loop().sock_recv(peer, 2**17):
            size += len(block)
            await asyncio.sleep(SHORT_SECONDS / 10)
    return size


@pytest.mark.slow
async def test_a_drain_gives_up_who_does_not_read_a_single_answer(
    patched: Patches, caplog: pytest.LogCaptureFixture
) -> None:
    patched(awaited, "STALLED_SECONDS", SHORT_SECONDS)
    async with asyncio.timeout(PATIENCE), serving(drain_seconds=10 * PATIENCE) as it, unread_answer(it):
        assert await drain.drain(it.service) == 0
    assert f"whose clients {READER}: 1;" in caplog.text


@pytest.mark.slow
async def test_a_drain_waits_for_who_reads_a_single_answer(patched: Patches, caplog: pytest.LogCaptureFixture) -> None:
    patched(awaited, "STALLED_SECONDS", SHORT_SECONDS)
    async with asyncio.timeout(PATIENCE), serving(drain_seconds=10 * PATIENCE) as it, unread_answer(it) as peer:
        reading = asyncio.create_task(read_slowly(peer))
        assert await drain.drain(it.service) == 0
        reading.cancel()
    assert "cut off" not in caplog.text


@pytest.mark.slow
async def test_a_single_answer_that_is_read_for_longer_than_the_drain_counts_as_unanswered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with asyncio.timeout(PATIENCE), serving(drain_seconds=1) as it, unread_answer(it) as peer:
        reading = asyncio.create_task(read_slowly(peer))
        assert await drain.drain(it.service) == 1
        reading.cancel()
    assert "cut off unanswered after 1 s: 1;" in caplog.text


@pytest.mark.slow
async def test_a_drain_waits_for_who_reads_an_answer_that_was_made_during_the_drain(patched: Patches) -> None:
    patched(drain, "LOOK_SECONDS", SHORT_SECONDS / 10)
    predictor = GatedPredictor()
    async with asyncio.timeout(PATIENCE), serving(predictor) as it, asked(it) as peer:
        await predictor.has_begun()
        looks = patched(drain, "open_connections")
        draining = asyncio.create_task(drain.drain(it.service))
        await until(lambda: looks.count > 2)
        predictor.open()
        await until(lambda: not it.service.calls.unanswered)
        seen = looks.count
        await until(lambda: looks.count > seen + 3)
        assert not draining.done()
        reading = asyncio.create_task(read_slowly(peer))
        assert await draining == 0
        reading.cancel()


@pytest.mark.slow
async def test_a_client_that_stalls_counts_once_also_if_an_earlier_answer_took_the_same_connection(
    patched: Patches, caplog: pytest.LogCaptureFixture
) -> None:
    patched(awaited, "STALLED_SECONDS", SHORT_SECONDS)
    patched(drain, "LOOK_SECONDS", SHORT_SECONDS / 10)
    async with asyncio.timeout(PATIENCE), serving() as it, connected(it) as (reader, writer):
        writer.write(archive(1, 100).replace(b"/batch", b""))
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.partition(b"content-length: ")[2].split()[0]))
        writer.transport.pause_reading()
        writer.write(archive(1, SIDE))
        await until(lambda: any(call.awaited.what == READER for call in it.service.calls.unanswered.values()))
        assert await drain.drain(it.service) == 0
    assert f"whose clients {READER}: 1;" in caplog.text


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


@contextlib.asynccontextmanager
async def relay(it: Running) -> AsyncIterator[tuple[int, list[asyncio.StreamWriter]]]:
    """Relay a gRPC connection; yield the port, and the writers to the service, whose transports can pause reading."""
    near: list[asyncio.StreamWriter] = []
    far: list[asyncio.StreamWriter] = []
    relaying: list[asyncio.Task[None] | None] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while block := await reader.read(2**16):
            writer.write(block)

    async def relayed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relaying.append(asyncio.current_task())
        far.append(writer)
        peer = socket.socket()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect(("127.0.0.1", it.grpc_port))
        near_reader, near_writer = await asyncio.open_connection(sock=peer)
        near.append(near_writer)
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(pump(reader, near_writer), pump(near_reader, writer))

    server = await asyncio.start_server(relayed, "127.0.0.1")
    async with server:
        yield server.sockets[0].getsockname()[1], near
        for writer in (*near, *far):
            writer.transport.abort()
        await asyncio.gather(*filter(None, relaying))


async def test_a_drain_waits_for_who_reads_an_answer_over_grpc() -> None:
    picture = archive(1, 100).partition(b"filename")[2].partition(b"\r\n\r\n")[2]
    async with (
        asyncio.timeout(PATIENCE),
        serving() as it,
        relay(it) as (port, near),
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        await channel.channel_ready()
        (to_service,) = near
        to_service.transport.pause_reading()
        request = pb.SegmentRequest(image=picture, output=pb.OUTPUT_OVERLAY)
        call = pb_grpc.SegmentationServiceStub(channel).Segment(request)
        await until(lambda: it.metric("pranet_requests_total", {"transport": "grpc", "code": "OK"}) == 1)
        await until(lambda: not it.service.calls.unanswered)
        draining = asyncio.create_task(drain.drain(it.service))
        asyncio.get_running_loop().call_later(SHORT_SECONDS, to_service.transport.resume_reading)
        assert await draining == 0
        assert to_service.transport.is_reading()
        assert (await call).png


@contextlib.asynccontextmanager
async def large_answer_over_grpc(it: Running) -> AsyncIterator[asyncio.ReadTransport]:
    """Have pictures answered with more than the buffers on the way hold; yield what can go on reading the answer."""
    image = oip.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1])
    request = oip.ModelInferRequest(
        model_name="pranet",
        inputs=[image],
        outputs=[oip.ModelInferRequest.InferRequestedOutputTensor(name="probability")],
        raw_input_contents=[pack("<I", len(LARGE)) + LARGE],
    )
    options = (("grpc.max_receive_message_length", -1),)
    async with relay(it) as (port, near), grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        await channel.channel_ready()
        (to_service,) = near
        to_service.transport.pause_reading()
        call = oip_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
        await until(lambda: it.metric("pranet_requests_total", {"transport": "grpc", "code": "OK"}) == 1)
        yield to_service.transport
        call.cancel()


@pytest.mark.slow
async def test_a_drain_gives_up_who_does_not_read_a_single_answer_over_grpc(
    patched: Patches, caplog: pytest.LogCaptureFixture
) -> None:
    patched(awaited, "STALLED_SECONDS", SHORT_SECONDS)
    patched(drain, "LOOK_SECONDS", SHORT_SECONDS)
    async with asyncio.timeout(PATIENCE), serving(drain_seconds=10 * PATIENCE) as it, large_answer_over_grpc(it):
        assert await drain.drain(it.service) == 0
    assert f"whose clients {READER}: 1;" in caplog.text


@pytest.mark.slow
async def test_a_single_answer_that_is_read_for_longer_than_the_drain_over_grpc_counts_as_unanswered(
    patched: Patches, caplog: pytest.LogCaptureFixture
) -> None:
    patched(awaited, "STALLED_SECONDS", SHORT_SECONDS)
    patched(drain, "LOOK_SECONDS", SHORT_SECONDS / 10)

    async def read_now_and_then(transport: asyncio.ReadTransport) -> None:
        while True:
            transport.resume_reading()
            await asyncio.sleep(SHORT_SECONDS / 100)
            transport.pause_reading()
            await asyncio.sleep(SHORT_SECONDS / 3)

    async with asyncio.timeout(PATIENCE), serving(drain_seconds=1) as it, large_answer_over_grpc(it) as transport:
        reading = asyncio.create_task(read_now_and_then(transport))
        assert await drain.drain(it.service) == 1
        reading.cancel()
    assert "cut off unanswered after 1 s: 1;" in caplog.text


@pytest.mark.slow
async def test_a_drain_gives_up_who_does_not_read_the_last_answers_of_a_websocket(
    patched: Patches, caplog: pytest.LogCaptureFixture
) -> None:
    patched(awaited, "STALLED_SECONDS", SHORT_SECONDS)
    patched(websocket, "CLOSE_SECONDS", SHORT_SECONDS / 10)
    async with asyncio.timeout(PATIENCE), serving(drain_seconds=10 * PATIENCE) as it, narrow(it) as opened:
        opened.transport.pause_reading()
        await opened.send(json.dumps({"output": "overlay"}))
        await opened.send(packed(0, noise(SIDE)))
        await until(lambda: it.metric("pranet_frames_total", {"slot": "0", "outcome": "answered"}) == 1)
        assert await drain.drain(it.service) == 0
        assert counted(it)[0] == {("websocket", "1001"): 1}
        opened.transport.abort()
    assert f"whose clients {READER}: 1;" in caplog.text


async def _send(call: Any) -> None:
    await call.write(pb.StreamRequest(config=pb.StreamConfig(policy=pb.POLICY_EVERY, mask_format=pb.MASK_FORMAT_BITS)))
    for number in range(FRAMES):
        await call.write(pb.StreamRequest(frame=pb.StreamFrame(frame_id=number, image=LARGE)))


@pytest.mark.slow
@pytest.mark.parametrize("reads", [True, False], ids=["reads at last", "leaves"])
async def test_a_grpc_stream_whose_answers_are_not_read_ends(reads: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Not even the first answer is: its message is larger than what the client takes up unread."""
    async with serving() as it, grpc.aio.insecure_channel(f"127.0.0.1:{it.grpc_port}", NARROW) as channel:
        call = pb_grpc.SegmentationServiceStub(channel).SegmentStream()
        sending = asyncio.create_task(_send(call))
        await until(lambda: it.metric("pranet_rejected_total", {"reason": "read-too-slowly"}) == 1)
        await until(lambda: not it.service.streams.active)
        if reads:
            with pytest.raises(grpc.RpcError):
                await replies(call)
            assert await status(call) == (grpc.StatusCode.DEADLINE_EXCEEDED, "read-too-slowly")
        else:
            call.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.slow
async def test_a_grpc_stream_whose_client_never_reads_does_not_hold_up_the_end_of_the_service(patched: Patches) -> None:
    patched(rpc_call, "STATUS_SECONDS", SHORT_SECONDS)
    async with serving() as it, grpc.aio.insecure_channel(f"127.0.0.1:{it.grpc_port}", NARROW) as channel:
        call = pb_grpc.SegmentationServiceStub(channel).SegmentStream()
        sending = asyncio.create_task(_send(call))
        await until(lambda: it.metric("pranet_rejected_total", {"reason": "read-too-slowly"}) == 1)
        await until(lambda: not it.service.calls.unanswered)
        assert not call.done()
        call.cancel()
        await asyncio.gather(sending, return_exceptions=True)


@pytest.mark.slow
async def test_a_stream_of_the_inference_protocol_whose_answers_are_not_read_ends() -> None:
    async with serving() as it, grpc.aio.insecure_channel(f"127.0.0.1:{it.grpc_port}", NARROW) as channel:
        call = oip_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer()
        image = oip.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1])
        request = oip.ModelInferRequest(
            model_name="pranet", inputs=[image], raw_input_contents=[pack("<I", len(LARGE)) + LARGE]
        )

        async def send() -> None:
            for _ in range(FRAMES):
                await call.write(request)

        sending = asyncio.create_task(send())
        await until(lambda: it.metric("pranet_rejected_total", {"reason": "read-too-slowly"}) == 1)
        await until(lambda: not it.service.streams.active)
        call.cancel()
        await asyncio.gather(sending, return_exceptions=True)


@contextlib.asynccontextmanager
async def narrow(it: Running) -> AsyncIterator[ClientConnection]:
    """Open a WebSocket behind which little is buffered."""
    near = socket.socket()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    near.connect(("127.0.0.1", it.port))
    near.setblocking(False)
    async with callers.socket(it, NO_ACCESS, by_header=True, sock=near, max_queue=1, compression=None) as opened:
        yield opened


async def _send_over(opened: ClientConnection) -> None:
    await opened.send(json.dumps({"policy": "every", "mask_format": "bits"}))
    for number in range(FRAMES):
        head = json.dumps({"frame_id": number}).encode()
        await opened.send(LENGTH.pack(len(head)) + head + LARGE)


@pytest.mark.slow
async def test_a_websocket_whose_answers_are_not_read_ends() -> None:
    async with serving() as it, narrow(it) as opened:
        sending = asyncio.create_task(_send_over(opened))
        await until(lambda: it.metric("pranet_rejected_total", {"reason": "read-too-slowly"}) == 1)
        await until(lambda: not it.service.streams.active)
        opened.transport.abort()
        await asyncio.gather(sending, return_exceptions=True)


async def test_a_grpc_message_that_does_not_arrive_is_given_up() -> None:
    async with serving(request_timeout_ms=300) as it:
        call = it.channel.stream_unary("/pranet.v1.SegmentationService/Segment")()  # as if it sent its one message late
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert dict(refused.value.trailing_metadata() or ())["pranet-error"] == "body-too-slow"
