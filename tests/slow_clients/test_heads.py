"""Clients that are slow with the head of a request, or send no request at all, are given up."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from service.http import server as http_server
from service.http.protocol import MAX_HEAD_BYTES
from service.readiness import Phase
from tests.support.patching import Patches
from tests.support.serving import PATIENCE, Running, connected, serving, until
from tests.support.slow_clients.reading import asked
from tests.support.slow_clients.sending import SHORT_SECONDS, SIDE, single, trickle

GET = b"GET /livez HTTP/1.1\r\nHost: pranet\r\n"


async def refusal(reader: asyncio.StreamReader) -> tuple[int, str]:
    """Read one answer to the end of the connection: its status and the tail of its type."""
    answer = b""
    with contextlib.suppress(ConnectionResetError):  # what comes after the end is answered so
        while block := await reader.read(2**16):
            answer += block
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["type"].removeprefix("urn:pranet:error:")


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
    async with serving() as it, asked(it, single(SIDE)):
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
