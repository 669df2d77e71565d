"""A body that is too large is refused so that its client can read why, however it sends."""

import asyncio
import itertools
import json
import socket
from collections.abc import AsyncIterator, Iterator

import grpc
import httpx
import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from service.http import protocol as http_protocol
from service.settings import MESSAGE_OVERHEAD_BYTES
from tests.support.patching import Patches
from tests.support.pictures import encoded, red_box
from tests.support.serving import PATIENCE, Running, connected, serving, until
from tests.support.streaming import EVERY, frame, status

MEBIBYTE = 2**20
SIZE = 40 * MEBIBYTE
GOOD = encoded(red_box(64, 48, (8, 8, 40, 40)))


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with serving() as running:
        yield running


def sends_all_then_reads(port: int, head: bytes, parts: Iterator[bytes]) -> tuple[int, dict[str, object]]:
    """Send the whole request before looking for an answer, as simple clients do."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(b"POST /segment HTTP/1.1\r\nHost: pranet\r\nContent-Type: image/png\r\n" + head + b"\r\n")
        for part in parts:
            connection.sendall(part)
        answer = connection.makefile("rb")
        status = int(answer.readline().split()[1])
        length = 0
        while (line := answer.readline().strip()) != b"":
            name, _, value = line.partition(b": ")
            length = int(value) if name.lower() == b"content-length" else length
        return status, json.loads(answer.read(length))


def plain() -> Iterator[bytes]:
    yield from [bytes(MEBIBYTE)] * (SIZE // MEBIBYTE)


def chunked() -> Iterator[bytes]:
    for part in plain():
        yield b"%x\r\n%b\r\n" % (len(part), part)
    yield b"0\r\n\r\n"


async def test_a_client_that_declares_its_length_can_read_the_refusal(running: Running) -> None:
    head = b"Content-Length: %d\r\n" % SIZE
    status, problem = await asyncio.to_thread(sends_all_then_reads, running.port, head, plain())
    assert (status, problem["type"]) == (413, "urn:pranet:error:too-many-bytes")
    assert "send a smaller one" in str(problem["detail"])


async def test_a_client_that_sends_chunks_can_read_the_refusal(running: Running) -> None:
    head = b"Transfer-Encoding: chunked\r\n"
    status, problem = await asyncio.to_thread(sends_all_then_reads, running.port, head, chunked())
    assert (status, problem["type"]) == (413, "urn:pranet:error:too-many-bytes")


async def send_all(writer: asyncio.StreamWriter, parts: Iterator[bytes]) -> None:
    for part in parts:
        writer.write(part)
        await writer.drain()


ENDLESS = b"POST /segment HTTP/1.1\r\nHost: pranet\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n%b\r\n"


async def test_an_early_refusal_can_be_read_by_who_asks_to_close_and_ends_the_connection(running: Running) -> None:
    async with connected(running) as (reader, writer):
        writer.write(ENDLESS % b"Connection: close\r\n")
        await send_all(writer, chunked())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert head.split()[1] == b"413"
    assert json.loads(body)["type"] == "urn:pranet:error:too-many-bytes"


async def test_an_early_refusal_tells_a_client_to_send_its_next_request_elsewhere(running: Running) -> None:
    """Otherwise it would lose a request that it sends in the moment in which the connection is closed."""
    async with connected(running) as (reader, writer):
        writer.write(ENDLESS % b"")
        await send_all(writer, chunked())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")  # to the connection's end
    assert head.split()[1] == b"413"
    assert head.count(b"connection: close") == 1
    assert json.loads(body)["type"] == "urn:pranet:error:too-many-bytes"


async def test_after_a_refusal_of_a_complete_request_the_connection_is_as_good_as_before(running: Running) -> None:
    async with connected(running) as (reader, writer):
        for _ in range(2):
            writer.write(b"POST /segment HTTP/1.1\r\nHost: pranet\r\nContent-Length: 5\r\n\r\nhello")
            answer = await reader.readuntil(b"}")
            assert answer.startswith(b"HTTP/1.1 415")
            assert b"connection" not in answer


async def test_fields_after_a_body_are_not_kept(running: Running, patched: Patches) -> None:
    kept, keep = [], HttpToolsProtocol.on_header
    patched(HttpToolsProtocol, "on_header", lambda self, name, value: (kept.append(name), keep(self, name, value)))
    async with connected(running) as (reader, writer):
        writer.write(ENDLESS % b"" + b"5\r\nhello\r\n0\r\n")
        await send_all(writer, itertools.repeat(b"aa:bb\r\n" * 1000, 100))
        writer.write(b"\r\n")
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 415")
    assert kept == [b"Host", b"Content-Type", b"Transfer-Encoding"]


async def test_after_an_early_refusal_nobody_is_waited_for(patched: Patches, running: Running) -> None:
    patched(http_protocol, "DISCARD_SECONDS", 0.2)
    async with connected(running) as (reader, writer):
        writer.write(ENDLESS % b"" + next(chunked()) * 33)
        answer = await reader.read()  # to the connection's end
    assert b" 413 " in answer


@pytest.mark.parametrize("form", [False, True], ids=["raw", "multipart"])
async def test_the_client_can_go_on_over_another_connection(running: Running, form: bool) -> None:
    async with httpx.AsyncClient(
        base_url=str(running.rest.base_url), limits=httpx.Limits(max_connections=1), timeout=PATIENCE, trust_env=False
    ) as client:
        large = bytes(SIZE)
        refused = await client.post("/segment", **({"files": {"file": large}} if form else {"content": large}))
        answered = await client.post("/segment", content=GOOD)
    assert (refused.status_code, answered.status_code) == (413, 200)


async def test_the_largest_allowed_body_is_read() -> None:
    async with serving(max_image_bytes=len(GOOD)) as running:
        assert (await running.rest.post("/segment", content=GOOD)).status_code == 200
        assert (await running.rest.post("/segment", files={"file": GOOD})).status_code == 200
        assert (await running.rest.post("/segment", content=GOOD + b"\0")).status_code == 413


async def test_a_form_may_not_hold_more_than_a_raw_body() -> None:
    async with serving(max_image_bytes=len(GOOD)) as running:
        answer = await running.rest.post("/segment", files={"file": GOOD + b"\0"})
        assert answer.status_code == 413


REFUSED = (grpc.StatusCode.RESOURCE_EXHAUSTED, "too-many-bytes")
EXCESSES = {"in its image": 1, "in its message": MESSAGE_OVERHEAD_BYTES}


@pytest.mark.parametrize("excess", EXCESSES.values(), ids=EXCESSES)
async def test_a_message_that_is_too_large_is_refused_with_its_cause_and_counted(excess: int) -> None:
    async with serving(max_image_bytes=len(GOOD)) as it:
        await it.stub.Segment(pb.SegmentRequest(image=GOOD))
        call = it.stub.Segment(pb.SegmentRequest(image=GOOD + bytes(excess)))
        assert await status(call) == REFUSED
        assert it.metric("pranet_rejected_total", {"reason": "too-many-bytes"}) == 1
        await until(lambda: it.metric("pranet_requests_total", {"transport": "grpc", "code": REFUSED[0].name}) == 1)


async def test_a_stream_with_a_message_that_is_too_large_ends_with_its_cause_and_is_counted() -> None:
    async with serving(max_image_bytes=len(GOOD)) as it:
        call = it.stub.SegmentStream(iter([EVERY, frame(1, image=GOOD + bytes(MESSAGE_OVERHEAD_BYTES))]))
        assert await status(call) == REFUSED
        assert it.metric("pranet_rejected_total", {"reason": "too-many-bytes"}) == 1
        labels = {"transport": "grpc-stream", "code": REFUSED[0].name}
        await until(lambda: it.metric("pranet_requests_total", labels) == 1)


async def test_a_message_of_any_size_is_cut_off_with_the_same_status() -> None:
    async with serving(max_image_bytes=len(GOOD)) as it:
        call = it.stub.Segment(pb.SegmentRequest(image=GOOD + bytes(MEBIBYTE)))
        assert (await status(call))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_body_that_stalls_is_given_up_with_408() -> None:
    async with serving(request_timeout_ms=200) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(b"POST /segment HTTP/1.1\r\nHost: pranet\r\nContent-Length: 1000\r\n\r\nonly this")
        status = await reader.readline()
        writer.close()
    assert b" 408 " in status
