"""What is refused before any route or method sees it is answered and counted like everything else."""

import asyncio
import json
import logging
import re
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from pranet_client.credentials import Access
from service.access.tokens import Token, digest_of
from service.http import protocol as http_protocol
from service.http.protocol import MAX_HEAD_BYTES
from service.pb.inference import open_inference_pb2 as inference
from service.pb.inference import open_inference_pb2_grpc as inference_grpc
from tests.support.callers import TRANSPORTS, Ask
from tests.support.patching import Patches, patching
from tests.support.pictures import encoded, red_box
from tests.support.predictors import RedPredictor
from tests.support.serving import PATIENCE, Running, connected, counted, serving, until

PICTURE = encoded(red_box(64, 48, (8, 8, 40, 40)))
POST = b"POST /segment HTTP/1.1\r\nHost: pranet\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
REFUSED = {  # bytes, and how they are refused
    "a head that stays incomplete": (POST, 408, "head-too-slow"),
    "a large head": (POST + b"X-Large: " + b"a" * MAX_HEAD_BYTES, 431, "head-too-large"),
    "a length that is no number": (POST + b"Content-Length: 5x\r\n\r\n", 400, "invalid-request"),
    "two lengths": (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400, "invalid-request"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "invalid-request"),
    "a method of the client's own": (b"PATIENT /7 HTTP/1.1\r\n\r\n", 400, "invalid-request"),
    "a target that is no path": (b"CONNECT host:443 HTTP/1.1\r\nHost: host\r\n\r\n", 400, "invalid-request"),
}
BROKEN = {  # requests that go wrong after their head
    "in the head's packet": (CHUNKED + b"not a size\r\n",),
    "later": (CHUNKED, b"5\r\nabcde\r\n", b"not a size\r\n"),
}


@pytest.fixture
async def running(patched: Patches) -> AsyncIterator[Running]:
    patched(http_protocol, "HEAD_SECONDS", 0.3)
    async with serving() as running:
        yield running


async def problem(it: Running, *packets: bytes) -> dict[str, str]:
    """Send something that ends the connection; return the one answer."""
    async with connected(it) as (reader, writer):
        for packet in packets:
            writer.write(packet)
            await writer.drain()
            await asyncio.sleep(0.05)  # so that each arrives by itself; nothing asserts that it did
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    found: dict[str, str] = json.loads(body)
    assert int(head.split()[1]) == found["status"]
    assert f"\r\nx-request-id: {found['request_id']}\r\n".encode() in head + b"\r\n"
    return found


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_no_request_is_counted_by_status_and_cause(running: Running, name: str) -> None:
    sent, status, cause = REFUSED[name]
    assert (await problem(running, sent))["type"] == f"urn:pranet:error:{cause}"
    assert counted(running) == ({("rest", str(status)): 1}, {cause: 1})


async def test_the_log_names_a_refusal_and_nothing_that_was_sent(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    answer = await problem(running, REFUSED["a method of the client's own"][0])
    assert f"rest - 400 0.0 ms id={answer['request_id']}" in caplog.text
    assert "PATIENT" not in caplog.text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a length that is no number", "Content-Length"),
        ("two lengths", "Content-Length"),
        ("TLS", "TLS"),
        ("a head that stays incomplete", "send them faster"),
        ("a large head", "send fewer or shorter headers"),
    ],
)
async def test_a_refusal_says_what_was_wrong_or_what_to_do(running: Running, name: str, said: str) -> None:
    assert said in (await problem(running, REFUSED[name][0]))["detail"]


async def test_only_who_speaks_tls_is_told_of_it(running: Running) -> None:
    assert "TLS" not in (await problem(running, REFUSED["two lengths"][0]))["detail"]


@pytest.mark.parametrize("name", BROKEN)
async def test_a_request_that_breaks_after_its_head_counts_once_as_what_its_client_was_told(
    running: Running, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    answer = await problem(running, *BROKEN[name])
    assert answer["type"] == "urn:pranet:error:invalid-request"
    await until(lambda: bool(counted(running)[0]))
    assert counted(running) == ({("rest", "400"): 1}, {"invalid-request": 1})
    assert f"id={answer['request_id']}" in caplog.text


@pytest.mark.parametrize("together", [True, False])
async def test_what_follows_a_request_is_refused_after_its_answer(running: Running, together: bool) -> None:
    request = POST + f"Content-Length: {len(PICTURE)}\r\n\r\n".encode() + PICTURE
    async with connected(running) as (reader, writer):
        for sent in [request + b"more than that"] if together else [request, b"more than that"]:
            writer.write(sent)
            await writer.drain()
        answers = await reader.read()
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200", b"400"]
    assert counted(running) == ({("rest", "200"): 1, ("rest", "400"): 1}, {"invalid-request": 1})


async def test_nothing_is_read_after_what_is_no_request_however_long_the_answer_before_it_takes(
    patched: Patches, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "uvicorn.error")  # which the service's own configuration silences
    patched(http_protocol, "HEAD_SECONDS", 0.2)
    opened = threading.Event()
    predictor = RedPredictor(lambda frames: None if opened.wait(PATIENCE) else pytest.fail("held"))
    async with serving(predictor) as it, connected(it) as (reader, writer):
        writer.write(POST + f"Content-Length: {len(PICTURE)}\r\n\r\n".encode() + PICTURE)
        for _ in range(5):
            writer.write(b"more than that" + bytes(MAX_HEAD_BYTES))
            await writer.drain()
            await asyncio.sleep(0.1)  # in all longer than a head may take
        opened.set()
        assert re.findall(rb"HTTP/1.1 (\d+)", await reader.read()) == [b"200", b"400"]
    assert caplog.text.count("Invalid HTTP request") == 1


async def test_a_broken_body_that_no_route_reads_leaves_the_answer_as_it_is(running: Running) -> None:
    assert (await problem(running, CHUNKED.replace(b"/segment", b"/nothing") + b"not a size\r\n"))["status"] == 404
    assert counted(running) == ({("rest", "404"): 1}, {"unknown-route": 1})


async def test_a_body_that_breaks_after_its_answer_changes_nothing(running: Running) -> None:
    async with connected(running) as (reader, writer):
        writer.write(POST + b"Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")
        answer = await reader.readuntil(b"}")
        writer.write(b"not a size\r\n")
        assert await reader.read() == b""
    assert b" 415 " in answer
    assert counted(running) == ({("rest", "415"): 1}, {"unsupported-image": 1})


@pytest.mark.parametrize(
    "method", ["/pranet.v1.SegmentationService/Unheard", "/of.nobody/Patient7", "/grpc.health.v1.Health/X"]
)
async def test_an_unknown_method_is_counted_and_names_its_cause(
    running: Running, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await running.channel.unary_unary(method)(PICTURE)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert dict(refused.value.trailing_metadata() or ())["pranet-error"] == "method-not-allowed"
    assert counted(running) == ({("grpc", "UNIMPLEMENTED"): 1}, {"method-not-allowed": 1})
    assert "grpc - UNIMPLEMENTED " in caplog.text
    assert method.rpartition("/")[2] not in caplog.text


async def test_what_methods_there_are_is_told_to_nobody_without_a_token(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(Token("good", digest_of("good")).line())
    async with serving(api_tokens_file=tokens) as it:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await it.channel.unary_unary("/pranet.v1.SegmentationService/Unheard")(b"")
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def upgrade(*headers: str, path: str = "/stream", method: str = "GET") -> bytes:
    lines = (f"{method} {path} HTTP/1.1", "Host: pranet", "Connection: Upgrade", "Upgrade: websocket", *headers)
    return "\r\n".join((*lines, "", "")).encode()


KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKES = {  # that are none
    "no key": (upgrade(), 400, "invalid-request"),
    "an old version": (upgrade(KEY, "Sec-WebSocket-Version: 8"), 426, "upgrade-required"),
    "no version": (upgrade(KEY), 400, "invalid-request"),
    "a body": (upgrade("Content-Length: 5", path="/segment", method="POST") + b"abcde", 400, "invalid-request"),
    "a body that does not come": (upgrade(KEY, "Content-Length: 5"), 400, "invalid-request"),
    "a long line": (upgrade(KEY, "X-Long: " + "a" * 10_000), 431, "head-too-large"),
    "many headers": (upgrade(KEY, *(f"X-{number}: a" for number in range(200))), 431, "head-too-large"),
}


@pytest.mark.parametrize("name", HANDSHAKES)
async def test_a_handshake_that_is_none_ends_the_connection_and_is_counted_once(running: Running, name: str) -> None:
    sent, status, cause = HANDSHAKES[name]
    assert (await problem(running, sent))["type"] == f"urn:pranet:error:{cause}"
    assert counted(running) == ({("websocket", str(status)): 1}, {cause: 1})


async def test_a_handshake_of_another_version_is_told_the_right_one(running: Running) -> None:
    async with connected(running) as (reader, writer):
        writer.write(upgrade(KEY, "Sec-WebSocket-Version: 14"))
        head, _, _ = (await reader.read()).lower().partition(b"\r\n\r\n")
    assert head.startswith(b"http/1.1 426 upgrade required\r\n")
    assert {b"sec-websocket-version: 13", b"upgrade: websocket"} <= set(head.splitlines())


@pytest.mark.parametrize("path", ["/nothing", "/segment", "/pages/live.css", "/v2/models/pranet"])
async def test_a_websocket_elsewhere_is_told_where_the_stream_is(
    running: Running, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws://127.0.0.1:{running.port}{path}", proxy=None)
    answer = refused.value.response
    assert answer.status_code == 404
    assert b"the video stream is at /stream" in (answer.body or b"")
    assert counted(running) == ({("websocket", "404"): 1}, {"unknown-route": 1})
    assert not [line for line in caplog.records if line.levelno >= logging.ERROR]


def fault(*given: object) -> None:
    raise KeyError("a fault of the service")


async def oip_rest(it: Running, access: Access) -> str:
    return str((await it.rest.get("/v2/health/ready")).status_code)


@pytest.mark.parametrize("ask", [*TRANSPORTS, oip_rest])
async def test_a_fault_of_the_service_is_counted_once_as_internal(running: Running, ask: Ask) -> None:
    with patching() as patched:
        patched(running.service.readiness.dead, "is_set", fault)
        await ask(running, Access())
    await until(lambda: bool(counted(running)[0]))
    requests, refusals = counted(running)
    assert refusals == {"internal": sum(requests.values())}  # a client of a stream may ask twice


async def test_a_fault_on_one_request_of_a_stream_is_counted_as_internal(running: Running, patched: Patches) -> None:
    patched("service.oip.rpc", "infer", fault)
    tensor = inference.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1])
    content = len(PICTURE).to_bytes(4, "little") + PICTURE
    request = inference.ModelInferRequest(model_name="pranet", inputs=[tensor], raw_input_contents=[content])
    async for answer in inference_grpc.GRPCInferenceServiceStub(running.channel).ModelStreamInfer(iter([request])):
        assert "log has the cause" in answer.error_message
    assert counted(running)[1] == {"internal": 1}


async def test_a_health_check_of_an_unknown_service_is_told_so_and_no_fault(running: Running) -> None:
    stub = health_pb2_grpc.HealthStub(running.channel)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.Check(health_pb2.HealthCheckRequest(service="nobody"))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert counted(running) == ({("grpc", "NOT_FOUND"): 1}, {"unknown-route": 1})


@pytest.mark.parametrize(
    "method",
    [
        "/inference.GRPCInferenceService/ModelStreamInfer",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/pranet.v1.SegmentationService/SegmentStream",
    ],
)
async def test_bytes_that_are_no_message_of_a_stream_are_refused_by_cause(running: Running, method: str) -> None:
    call = running.channel.stream_stream(method)(iter([b"\xff\xff"]))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await anext(aiter(call))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert counted(running)[1] == {"invalid-request": 1}
