"""What clients do wrong is one line of the service's own in the log, without a byte of what they sent."""

import contextlib
import inspect
import io
import json
import logging
import os
import re
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Literal

import httpx
import pytest
import uvicorn.server
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image
from uvicorn.protocols.http import httptools_impl

from service import app
from service.observability import logs
from service.pb.inference import open_inference_pb2 as pb
from service.pb.inference import open_inference_pb2_grpc as pb_grpc
from tests.support import processes
from tests.support.certificates import Authority
from tests.support.patching import Patches
from tests.support.predictors import GatedPredictor
from tests.support.serving import PATIENCE, Running, connected, serving, until

FORM = {"content-type": "multipart/form-data; boundary=b"}
HANDSHAKE = (
    b"GET /stream HTTP/1.1\r\nHost: pranet\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
MASKED = b"\x84" + bytes(4)  # four bytes follow, masked with zeros
NO_MESSAGES = {  # first byte and rest of a WebSocket frame, and the code that it is closed with
    "text that is not UTF-8": (b"\x81" + MASKED + b"Jo\xff\xfe", 1007),
    "an operation that does not exist": (b"\x83" + MASKED + b"Jo--", 1002),
    "an end without a beginning": (b"\x80" + MASKED + b"Jo--", 1002),
}
NO_FORMS = [b"Jo", b"--b\r\n\xffJo: x\r\n\r\nabc\r\n--b--"]


@pytest.fixture
def written(patched: Patches) -> Iterator[io.StringIO]:
    """Log as the service does, and afterwards as before."""
    written = io.StringIO()
    patched(logging.root, "handlers", [])
    before = {name: logging.getLogger(name).level for name in ("", *logs.QUIETER)}
    with contextlib.redirect_stderr(written):
        logs.configure("info", "json")
    yield written
    logging.getLogger("uvicorn.error").removeFilter(logs._is_news)
    logging.getLogger("grpc._cython.cygrpc").removeFilter(logs._of_who_left)
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
async def running(written: io.StringIO) -> AsyncIterator[Running]:
    async with serving() as running:
        yield running


def logged(written: io.StringIO) -> list[str]:
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    ours = [line for line in lines if line["logger"] != "httpx"]
    assert {line["logger"] for line in ours} == {"pranet.access"}
    assert not [line for line in ours if "exception" in line]
    return [line["message"] for line in ours]


def of_libraries(log: Path) -> list[str]:
    """Return the lines of a log that are not the service's."""
    return [line for line in log.read_text().splitlines() if not re.match(r"\d{4}-\d\d-\d\d ", line)]


@pytest.mark.parametrize("name", NO_MESSAGES)
async def test_what_is_no_websocket_message_is_one_line(name: str, running: Running, written: io.StringIO) -> None:
    sent, code = NO_MESSAGES[name]
    async with connected(running) as (reader, writer):
        writer.write(HANDSHAKE)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sent)
        closed = await reader.read()
    assert (closed[0], int.from_bytes(closed[2:4])) == (0x88, code)
    await until(lambda: running.metric("pranet_requests_total", {"transport": "websocket", "code": str(code)}) == 1)
    (line,) = logged(written)
    assert line.startswith(f"websocket WS /stream {code}")


@pytest.mark.parametrize("path", ["/segment", "/segment/batch"])
@pytest.mark.parametrize("body", NO_FORMS)
async def test_a_broken_form_is_one_line(body: bytes, path: str, running: Running, written: io.StringIO) -> None:
    answer = await running.rest.post(path, content=body, headers=FORM)
    assert answer.status_code == 400
    (line,) = logged(written)
    assert line.startswith(f"rest POST {path} 400")


async def test_an_archive_that_is_cut_off_is_one_line(written: io.StringIO) -> None:
    predictor = GatedPredictor()
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    async with serving(predictor) as it:
        with contextlib.suppress(httpx.RemoteProtocolError):
            async with it.rest.stream("POST", "/segment/batch", files={"file": picture.getvalue()}) as answer:
                await predictor.has_begun()
                (call,) = it.service.calls.unanswered.values()
                call.cut_off()
                await answer.aread()
        predictor.open()
    (line,) = logged(written)
    assert line.startswith("rest POST /segment/batch 503")


async def test_what_is_no_http_is_one_line(running: Running, written: io.StringIO) -> None:
    async with connected(running) as (reader, writer):
        writer.write(b"Jo\r\n\r\n")
        await reader.read()
    (line,) = logged(written)
    assert line.startswith("rest - 400")


async def test_a_line_of_the_access_log_has_its_parts_as_members(running: Running, written: io.StringIO) -> None:
    await running.rest.get("/info", headers={"x-request-id": "case-7"})
    (line,) = [each for each in map(json.loads, written.getvalue().splitlines()) if each["logger"] == "pranet.access"]
    parts = {name: line[name] for name in ("transport", "call", "code", "request_id")}
    assert parts == {"transport": "rest", "call": "GET /info", "code": "200", "request_id": "case-7"}
    assert line["message"] == f"rest GET /info 200 {line['duration_ms']:.1f} ms id=case-7"
    assert line["process"] == os.getpid()


@pytest.mark.parametrize(
    ("method", "path", "headers", "logged_as"),
    [
        ("GET", "/v2", {}, "GET /v2 200"),
        ("GET", "/openapi.json", {}, "GET /openapi.json 200"),
        ("GET", "/Mueller-Hans", {}, "GET - 404"),
        ("POST", "/info", {}, "POST /info 405"),
        ("PROPFIND", "/segment", {}, "HTTP /segment 405"),
        ("POST", "/segment", {"origin": "https://elsewhere.example"}, "POST /segment 403"),
    ],
)
async def test_a_line_names_method_and_route_also_where_none_answered_but_never_a_path_that_the_client_made_up(
    method: str, path: str, headers: dict[str, str], logged_as: str, running: Running, written: io.StringIO
) -> None:
    await running.rest.request(method, path, headers=headers)
    (line,) = logged(written)
    assert line.startswith(f"rest {logged_as}")


@pytest.mark.parametrize("path", ["", "/versions/1"])
async def test_a_probe_is_no_line_of_the_access_log_on_any_path(
    path: str, running: Running, written: io.StringIO
) -> None:
    for each in ("/livez", "/readyz", "/v2/health/live", "/v2/health/ready", f"/v2/models/pranet{path}/ready"):
        assert (await running.rest.get(each)).status_code == 200
    assert not written.getvalue()


async def test_a_probe_of_grpc_is_no_line_of_the_access_log_by_any_method(
    running: Running, written: io.StringIO
) -> None:
    inference, health = pb_grpc.GRPCInferenceServiceStub(running.channel), health_pb2_grpc.HealthStub(running.channel)
    await inference.ServerLive(pb.ServerLiveRequest())
    await inference.ServerReady(pb.ServerReadyRequest())
    await inference.ModelReady(pb.ModelReadyRequest(name="pranet"))
    await health.Check(health_pb2.HealthCheckRequest())
    await until(lambda: running.metric("pranet_requests_total", {"transport": "grpc", "code": "OK"}) == 4)
    assert not written.getvalue()


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_a_log_for_programs_has_no_text_for_people_beside_it(
    log_format: Literal["text", "json"], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)  # as the command line does
    async with serving(log_format=log_format) as it:
        app._announce(it.service, it.port, it.grpc_port)
    assert ("PraNet is ready" in capfd.readouterr().out) == (log_format == "text")
    assert any(line.getMessage().startswith("ready: http://") for line in caplog.records) == (log_format == "json")


@pytest.mark.slow
def test_a_log_has_only_the_services_lines_whatever_libraries_say_of_a_picture(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(buffer, "TIFF", compression="tiff_adobe_deflate")
    damaged = bytearray(buffer.getvalue())
    damaged[8:200] = bytes(192)  # libtiff: ZIPDecode: Decoding error at scanline 0
    tags = [(256, 2, 4 | 4 << 16), (257, 1, 4), (258, 1, 8), (262, 1, 1), (273, 1, 8), (277, 1, 1), (279, 1, 16)]
    entries = b"".join(struct.pack("<HHII", tag, 3, count, value) for tag, count, value in tags)
    two_widths = struct.pack("<2sHI16xH", b"II", 42, 24, len(tags)) + entries + bytes(4)  # Pillow: Metadata Warning
    log = tmp_path / "log"
    with log.open("w") as stderr, processes.fake_server("--log-level", "info", stderr=stderr) as server:
        statuses = [
            httpx.post(f"{server.url}/segment", content=each, trust_env=False).status_code
            for each in (bytes(damaged), two_widths)
        ]
    assert statuses == [422, 200]
    assert of_libraries(log) == []


@pytest.mark.slow
def test_a_log_has_only_the_services_lines_where_clients_of_grpc_speak_no_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)  # this process has set it, too
    authority, log = Authority(tmp_path), tmp_path / "log"
    cert, key = authority.issue("127.0.0.1")
    tls = ("--tls-cert", cert, "--tls-key", key)
    with log.open("w") as stderr, processes.fake_server(*tls, stderr=stderr, ca=authority.pem) as server:
        address, _, port = server.grpc_address.rpartition(":")
        for sent in (b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
            with socket.create_connection((address, int(port)), PATIENCE) as plain:
                plain.sendall(sent)
                while plain.recv(100):
                    pass
    assert of_libraries(log) == []


def test_of_a_drain_that_was_cut_off_the_service_tells_and_uvicorn_does_not(written: io.StringIO) -> None:
    """Its line is an error also if only a connection was left whose client does not read."""
    drain, archive = logs.TOLD
    assert f'"{drain}' in inspect.getsource(uvicorn.server)
    logging.getLogger("uvicorn.error").error(f"{drain}, timeout graceful shutdown exceeded", 0)
    assert archive in inspect.getsource(httptools_impl)
    logging.getLogger("uvicorn.error").error(f"{archive}.")
    assert not written.getvalue()
    logging.getLogger("uvicorn.error").error("another error")
    assert "another error" in written.getvalue()


def test_what_grpc_logs_of_a_client_that_left_within_its_answer_is_one_line(written: io.StringIO) -> None:
    """As grpcio 1.85.1 does, if the connection is reset at the right moment."""
    try:
        raise RuntimeError("Failed grpc_call_start_batch")
    except RuntimeError:
        logging.getLogger("grpc._cython.cygrpc").exception(
            "ExecuteBatchError raised in core by servicer method [%s]", "/pranet.v1.SegmentationService/Segment"
        )
    (line,) = (json.loads(line) for line in written.getvalue().splitlines())
    assert line["level"] == "info"
    assert line["message"] == ("the client left before it had its answer: [/pranet.v1.SegmentationService/Segment]")
    assert "exception" not in line
