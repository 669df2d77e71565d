"""Errors of the client, its time limit, and what it sends again."""

import asyncio
import contextlib
import pickle
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pranet_client import Access, AsyncClient, InvalidInput, RequestFailed, StreamConfig, TlsError
from service.readiness import Phase
from tests.support.pictures import encoded, red_box
from tests.support.predictors import PATIENCE, GatedPredictor
from tests.support.serving import Running, serving, until

BOX = red_box(64, 48, (16, 12, 48, 36))
PICTURE = encoded(BOX)
URL = "http://127.0.0.1"
PNG = b"\x89PNG..."


def client_of(it: Running, **options: Any) -> AsyncClient:
    return AsyncClient(f"{URL}:{it.port}", f"127.0.0.1:{it.grpc_port}", **options)


async def test_an_error_has_status_request_id_and_the_time_to_wait() -> None:
    async with serving(max_queue_size=1) as it, client_of(it, retries=0) as client:
        with pytest.raises(RequestFailed, match="unsupported-image") as refused:
            await client.segment(b"<html>")
        assert (refused.value.status, refused.value.retry_after) == (415, None)
        assert len(refused.value.request_id or "") == 32
        with pytest.raises(RequestFailed, match="invalid-parameter"):
            await client.segment(PICTURE, threshold=7)
        it.service.readiness.enter(Phase.DRAINING)
        with pytest.raises(RequestFailed, match="draining") as later:
            await client.segment(PICTURE)
        assert (later.value.status, later.value.retry_after is not None) == (503, True)


@contextlib.asynccontextmanager
async def proxy(*answers: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Answer one request after another as a faulty proxy would; an empty answer closes the connection without one."""
    asked: list[bytes] = []
    left = list(answers)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head + await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0])))
        if answer := left.pop(0):
            writer.write(answer)
            await writer.drain()
        writer.close()
        if not left:
            server.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        yield f"{URL}:{server.sockets[0].getsockname()[1]}", asked


def said(status: int, body: bytes = b"", headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


REPEATS: dict[str, tuple[list[bytes], int, str | None]] = {  # answers, requests sent, error
    "busy": ([said(429, headers="retry-after: 0\r\n"), said(200, PNG)], 2, None),
    "closed": ([b"", said(200, PNG)], 2, None),
    "busy-and-gone": ([said(503, headers="retry-after: 0\r\n")], 1, "http-503"),
    "closed-midway": ([said(200, PNG)[:-1], said(200, PNG)], 1, "unreachable"),
    "always": ([b""] * 3, 3, "unreachable"),
    "too-long-to-wait": ([said(503, headers="retry-after: 3600\r\n")], 1, "http-503"),
    "proxy-html": ([said(502, b"<html>", "content-type: text/html\r\n")], 1, "http-502: <html>"),
    "wrong-json": ([said(500, b"{", "content-type: application/json\r\n")], 1, "http-500"),
    "json-list": ([said(500, b"[]", "content-type: application/json\r\n")], 1, "http-500"),
    "slow": ([said(504)], 1, "http-504"),
    "bad": ([said(422)], 1, "http-422"),
}


@pytest.mark.parametrize("name", REPEATS)
async def test_only_what_may_succeed_is_sent_again(name: str) -> None:
    answers, times, says = REPEATS[name]
    async with proxy(*answers) as (url, asked), AsyncClient(url, retries=2) as client:
        if says is None:
            assert await client.render(PICTURE) == PNG
        else:
            with pytest.raises(RequestFailed, match=says):
                await client.render(PICTURE)
    assert len(asked) == times
    assert all(each.endswith(PICTURE) for each in asked)


async def test_a_service_that_starts_is_asked_again_when_it_said() -> None:
    async with serving() as it, asyncio.timeout(PATIENCE), client_of(it) as client:
        it.service.readiness.enter(Phase.STARTING)
        asking = asyncio.create_task(client.segment(PICTURE))
        await until(lambda: it.metric("pranet_requests_total", {"transport": "rest", "code": "503"}) == 1)
        it.service.readiness.enter(Phase.SERVING)
        assert (await asking).width == 64


async def test_a_service_that_does_not_answer_in_time_is_said_to_be_slow() -> None:
    predictor = GatedPredictor()
    predictor.open()
    async with serving(predictor) as it, asyncio.timeout(PATIENCE), client_of(it, timeout=0.3) as client:
        predictor.permits = threading.Semaphore(0)
        with pytest.raises(RequestFailed, match=r"timeout: no answer within 0\.3 s") as slow:
            await client.segment(PICTURE)
        assert slow.value.status is None
        predictor.open()


async def test_a_refused_stream_has_the_same_fields() -> None:
    async with serving() as it, client_of(it) as client:
        with pytest.raises(RequestFailed, match="invalid-parameter") as refused:
            [each async for each in client.stream([PICTURE], StreamConfig(threshold=7))]
        assert (refused.value.status, refused.value.retry_after) == ("INVALID_ARGUMENT", None)
        assert refused.value.request_id


async def test_a_service_that_is_not_there_is_not_taken_for_one_with_another_protocol() -> None:
    async with AsyncClient("http://127.0.0.1:1") as client:
        with pytest.raises(
            RequestFailed, match=r"no service answers at http://127\.0\.0\.1:1; check that it runs"
        ) as failed:
            await client.info()
    assert "gRPC" not in failed.value.detail


async def test_an_answer_of_another_server_is_an_error_of_the_client() -> None:
    page = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>"
    async with proxy(page) as (url, _), AsyncClient(url) as client:
        with pytest.raises(RequestFailed, match="answers, but not as this service does"):
            await client.segment(PICTURE)


async def test_a_batch_of_another_server_is_an_error_of_the_client() -> None:
    async with proxy(said(200, b"<html>")) as (url, _), AsyncClient(url) as client:
        with pytest.raises(RequestFailed, match="answers, but not as this service does; check the address"):
            [each async for each in client.batch([PICTURE])]


@pytest.mark.parametrize("body", [b"<html>", b"{}", b""])
async def test_a_picture_of_another_server_is_an_error_of_the_client(body: bytes) -> None:
    async with proxy(said(200, body)) as (url, _), AsyncClient(url) as client:
        with pytest.raises(RequestFailed, match="answers, but not as this service does"):
            await client.render(PICTURE)


async def test_an_answer_that_breaks_off_does_not_look_like_a_service_that_is_away() -> None:
    async with proxy(said(200, PNG)[:-1]) as (url, _), AsyncClient(url) as client:
        with pytest.raises(RequestFailed, match="broke before the whole answer had come; send"):
            await client.render(PICTURE)


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "http://127.0.0.1:abc", "127.0.0.1:8000", "ftp://x", ""])
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(InvalidInput, match="is not an address; give it as http://HOST:PORT"):
        AsyncClient(url)


async def test_a_password_in_an_address_is_never_shown() -> None:
    async with AsyncClient("http://doctor:secret@127.0.0.1:1", retries=0) as client:
        with pytest.raises(RequestFailed, match=r"no service answers at http://127\.0\.0\.1:1;"):
            await client.segment(PICTURE)


async def test_a_batch_that_breaks_off_without_a_sign_is_noticed() -> None:
    """In HTTP/1.0, as some proxies speak it, the end of the connection ends the body."""
    error = b'{"index": 0, "error": {"status": 415, "type": "urn:pranet:error:unsupported-image", "detail": "x"}}'
    answer = b"HTTP/1.0 200 OK\r\n\r\n" + error + b"\n"
    async with proxy(answer) as (url, _), AsyncClient(url) as client:
        answers = client.batch([PICTURE, PICTURE])
        assert (await anext(answers)).index == 0
        with pytest.raises(RequestFailed, match="broke off after 1 of 2 pictures; send the others again"):
            await anext(answers)


def test_an_error_reaches_the_parent_of_a_pool_of_processes() -> None:
    sent = RequestFailed("queue-full", "the queue is full", status=429, retry_after=1.0, request_id="7")
    came = pickle.loads(pickle.dumps(sent))
    assert (str(came), vars(came)) == ("queue-full: the queue is full", vars(sent))


def test_a_token_from_a_file_may_end_with_a_line_break_and_is_never_shown() -> None:
    access = Access("secret\n")
    assert access.metadata() == (("authorization", "Bearer secret"),)
    assert "secret" not in repr(access)
    with pytest.raises(InvalidInput, match="characters that no token has"):
        Access("two\nlines")


def test_a_certificate_is_never_left_out_in_silence(tmp_path: Path) -> None:
    with pytest.raises(TlsError, match="needs its key"):
        Access(cert=tmp_path / "cert.pem")
    with pytest.raises(TlsError, match="pass ca, too"):
        Access(cert=tmp_path / "cert.pem", key=tmp_path / "key.pem").channel("127.0.0.1:1")
    with pytest.raises(TlsError, match=r"cert\.pem"):
        Access(cert=tmp_path / "cert.pem", key=tmp_path / "key.pem").http("https://127.0.0.1")
