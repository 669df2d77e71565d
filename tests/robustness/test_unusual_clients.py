"""Clients that speak HTTP and gRPC in unusual ways get an answer, and leave the service as it was."""

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator

import grpc
import pytest

from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from service.http import protocol as http_protocol
from service.http.protocol import HttpProtocol
from service.runtime import Phase
from tests.support.patching import Patches
from tests.support.pictures import encoded, red_box
from tests.support.predictors import GatedPredictor
from tests.support.serving import Running, connected, counted, serving, until
from tests.support.streaming import held

GOOD = encoded(red_box(64, 48, (8, 8, 40, 40)))
IDLE = 300  # connections that never say a word


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with serving() as running:
        yield running
        assert (await running.rest.post("/segment", content=GOOD)).status_code == 200
        await until(lambda: running.metric("pranet_in_flight") == 0)


def post(*headers: str, version: str = "1.1", path: str = "/segment") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: pranet", f"Content-Length: {len(GOOD)}", *headers, "", ""]
    return "\r\n".join(lines).encode()


async def response(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    status = int((await reader.readline()).split()[1])
    headers: dict[str, str] = {}
    while (line := (await reader.readline()).decode("latin-1").strip()) != "":
        name, _, value = line.partition(": ")
        headers[name.lower()] = value
    return status, headers, await reader.readexactly(int(headers.get("content-length", 0)))


async def test_http_1_0_is_answered_and_closed(running: Running) -> None:
    async with connected(running) as (reader, writer):
        writer.write(post(version="1.0") + GOOD)
        assert (await response(reader))[0] == 200
        assert await reader.read() == b""


@pytest.mark.parametrize("hosts", [b"", b"Host: pranet\r\nHost: elsewhere\r\n"], ids=["none", "two"])
async def test_a_request_with_another_number_of_hosts_than_one_is_refused(running: Running, hosts: bytes) -> None:
    async with connected(running) as (reader, writer):
        writer.write(b"GET /livez HTTP/1.1\r\n" + hosts + b"\r\n")
        status, headers, body = await response(reader)
    assert (status, headers["connection"]) == (400, "close")
    assert b"Host" in body


async def test_http_1_0_needs_no_host(running: Running) -> None:
    async with connected(running) as (reader, writer):
        writer.write(b"GET /livez HTTP/1.0\r\n\r\n")
        assert (await response(reader))[0] == 200


async def test_pipelined_requests_are_answered_in_their_order(running: Running) -> None:
    async with connected(running) as (reader, writer):
        writer.write(b"".join(post(f"X-Request-ID: frame-{number}") + GOOD for number in range(5)))
        answers = [await response(reader) for _ in range(5)]
    assert [status for status, *_ in answers] == [200] * 5
    assert [headers["x-request-id"] for _, headers, _ in answers] == [f"frame-{number}" for number in range(5)]


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    return [line for line in found if not line.startswith("Cancel ")]  # which the service's own log leaves out


async def test_a_client_that_leaves_its_pipelined_requests_is_no_error_of_the_service(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with held() as hold:
        async with connected(hold.it) as (_, writer):
            writer.write(2 * (post() + GOOD))
            await hold.predictor.has_begun()
            writer.transport.abort()
            await hold.nothing_left()
        assert counted(hold.it)[1] == {"client-left": 1}
    assert errors(caplog) == []


async def test_a_client_that_leaves_holds_no_memory_until_a_garbage_collection(running: Running) -> None:
    def connections() -> int:
        return sum(isinstance(each, HttpProtocol) for each in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = connections()
        for _ in range(3):
            async with connected(running) as (_, writer):
                writer.write(post() + GOOD)
                await writer.drain()
                writer.transport.abort()
        await until(lambda: connections() == before)
    finally:
        gc.enable()


async def test_pipelined_requests_that_the_end_of_the_service_cuts_off_are_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    predictor = GatedPredictor()
    async with serving(predictor) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(2 * (post() + GOOD))
        await predictor.has_begun()
    predictor.open()
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()
    assert errors(caplog) == []


async def test_a_client_that_waits_for_100_continue_is_told_to_go_on(running: Running) -> None:
    async with connected(running) as (reader, writer):
        writer.write(post("Expect: 100-continue"))
        assert b" 100 " in await reader.readline()
        assert await reader.readline() == b"\r\n"
        writer.write(GOOD)
        assert (await response(reader))[0] == 200


@pytest.mark.parametrize("at_once", [True, False])
async def test_who_would_rather_speak_http_2_is_answered_in_http_1_1(running: Running, at_once: bool) -> None:
    head = post("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAA")
    async with connected(running) as (reader, writer):
        for _ in range(2):
            writer.write(head)
            if not at_once:
                await asyncio.sleep(0.05)  # a segment of its own
            writer.write(GOOD)
            assert (await response(reader))[0] == 200


async def test_who_sends_the_head_line_by_line_is_answered_in_http_1_1_too(running: Running) -> None:
    async with connected(running) as (reader, writer):
        for line in post("Connection: Upgrade", "Upgrade: h2c").splitlines(keepends=True):
            writer.write(line)
            await asyncio.sleep(0.02)  # a segment of its own
        writer.write(GOOD)
        assert (await response(reader))[0] == 200


async def test_a_pipelined_body_has_its_requests_time(running: Running, patched: Patches) -> None:
    patched(http_protocol, "DISCARD_SECONDS", 0.1)
    async with connected(running) as (reader, writer):
        writer.write(post() + GOOD + post())
        assert (await response(reader))[0] == 200
        await asyncio.sleep(0.3)
        writer.write(GOOD)
        assert (await response(reader))[0] == 200


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "DELETE", "TRACE", "PROPFIND"])
async def test_other_methods_are_refused(running: Running, method: str) -> None:
    answer = await running.rest.request(method, "/segment")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/livez", "/v2", "/v2/health/live", "/v2/models/pranet/ready", "/stream"])
async def test_who_uses_another_method_than_get_is_told_of_head_too(running: Running, path: str) -> None:
    answer = await running.rest.put(path)
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize("path", ["/segment/", "/livez/", "/v2/models/pranet/infer/", "/v2/health/live/"])
async def test_a_slash_too_many_is_no_route_and_sends_nobody_elsewhere(running: Running, path: str) -> None:
    answer = await running.rest.post(path, content=GOOD, headers={"Host": "elsewhere.example"})
    assert answer.status_code == 404
    assert "location" not in answer.headers


async def test_the_stream_without_a_websocket_asks_for_one(running: Running) -> None:
    answer = await running.rest.get("/stream")
    assert (answer.status_code, answer.json()["type"]) == (426, "urn:pranet:error:upgrade-required")
    assert (answer.headers["upgrade"], answer.headers["connection"]) == ("websocket", "upgrade")
    documented = (await running.rest.get("/openapi.json")).json()["paths"]["/stream"]["get"]["responses"]
    assert {"101", "426"} <= documented.keys()


@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/info", "/metrics", "/", "/docs", "/docs/try", "/v2", "/v2/models/pranet"]
)
async def test_head_is_answered_as_get_without_the_body(running: Running, path: str) -> None:
    own = {"date", "x-request-id", "content-length"}  # of each answer
    answers = {method: await running.rest.request(method, path) for method in ("HEAD", "GET")}
    head, get = ({k: v for k, v in answer.headers.items() if k not in own} for answer in answers.values())
    assert answers["HEAD"].status_code == 200
    assert head == get
    assert int(answers["HEAD"].headers["content-length"]) > 0
    assert answers["HEAD"].content == b""


async def test_head_tells_a_balancer_that_no_new_work_is_taken(running: Running) -> None:
    running.service.readiness.enter(Phase.STARTING)
    assert (await running.rest.head("/readyz")).status_code == 503
    running.service.readiness.enter(Phase.SERVING)


async def test_the_connection_is_as_usable_after_head_as_before(running: Running) -> None:
    async with connected(running) as (reader, writer):
        for _ in range(2):
            writer.write(b"HEAD /livez HTTP/1.1\r\nHost: pranet\r\n\r\n")
            assert b" 200 " in (await reader.readuntil(b"\r\n\r\n")).splitlines()[0]


async def test_the_document_names_no_method_but_get_and_post(running: Running) -> None:
    paths = (await running.rest.get("/openapi.json")).json()["paths"]
    assert {method for operations in paths.values() for method in operations} == {"get", "post"}


@pytest.mark.parametrize(
    "given", ["a b", "frame\t7", "<script>", "\u00fc", "x" * 129, "", "%0d%0aSet-Cookie: a=b", "a, b"]
)
async def test_a_request_id_that_cannot_be_echoed_is_replaced(running: Running, given: str) -> None:
    answer = await running.rest.get("/livez", headers=[(b"x-request-id", given.encode())])
    assert len(answer.headers["x-request-id"]) == 32
    assert "set-cookie" not in answer.headers


async def test_the_last_of_two_request_ids_is_used(running: Running) -> None:
    answer = await running.rest.get("/livez", headers=[("x-request-id", "one"), ("x-request-id", "two")])
    assert answer.headers["x-request-id"] == "two"


@pytest.mark.parametrize(
    "head",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /segment HTTP/1.1\r\nHost: pranet\r\nContent-Length: -1\r\n\r\n",
        b"POST /segment HTTP/1.1\r\nHost: pranet\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
        b"POST /segment HTTP/1.1\r\nHost: pranet\r\nContent-Length: 3\r\nContent-Length: 9\r\n\r\nabc",
        b"POST /segment HTTP/1.1\r\nHost: pranet\r\nContent-Length: 99999999999999999999999\r\n\r\nabc",
        b"POST /segment HTTP/1.1\r\nHost: pranet\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["no HTTP", "TLS", "negative length", "two framings", "two lengths", "endless length", "bad chunk"],
)
async def test_what_is_not_http_ends_its_connection_only(running: Running, head: bytes) -> None:
    async with connected(running) as (reader, writer):
        writer.write(head)
        writer.write_eof()
        answer = await reader.read()
    assert not answer or answer.split()[1].startswith(b"4")


async def test_a_client_that_stops_sending_halfway_is_forgotten(running: Running) -> None:
    async with connected(running) as (_, writer):
        writer.write(post() + GOOD[:50])
        await writer.drain()
    await until(lambda: running.metric("pranet_rejected_total", {"reason": "client-left"}) == 1)


async def test_hundreds_of_silent_connections_hold_up_nobody(running: Running) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(IDLE):
            await stack.enter_async_context(connected(running))
        assert (await running.rest.post("/segment", content=GOOD)).status_code == 200


async def test_an_empty_message_says_what_is_missing(running: Running) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await running.stub.Segment(pb.SegmentRequest())
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "the picture is empty" in (refused.value.details() or "")


async def test_bytes_that_are_no_message_are_refused(running: Running) -> None:
    call = running.channel.unary_unary("/pranet.v1.SegmentationService/Segment")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(b"\xff\xff\xff")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_unknown_method_is_unimplemented(running: Running) -> None:
    call = running.channel.unary_unary("/pranet.v1.SegmentationService/Classify")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(b"")
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
