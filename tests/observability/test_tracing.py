"""Traces as a real OTLP receiver gets them, and the ids in the log."""

import asyncio
import contextlib
import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from websockets.asyncio.client import connect

from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from service.observability import logs, tracing
from service.observability.stage_times import STAGES
from service.rest.websocket_messages import LENGTH
from service.settings import Settings, SettingsError
from tests.support.patching import Patches
from tests.support.pictures import ROOT, SAMPLES
from tests.support.predictors import RedPredictor
from tests.support.servers.otlp import Receiver, receiving, receiving_over_http
from tests.support.serving import PATIENCE, Running, serving

IMAGE = SAMPLES[0].read_bytes()
EVERY_FRAME = [stage for stage in STAGES if stage != "maps"]
TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch, patched: Patches) -> Iterator[Receiver]:
    """Receive traces where OpenTelemetry's own variable says."""
    patched(tracing, "FLUSH_SECONDS", PATIENCE)
    with receiving() as (receiver, endpoint):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        yield receiver


@contextlib.contextmanager
def json_log() -> Iterator[list[dict[str, Any]]]:
    """Collect what is logged as JSON lines."""
    lines: list[dict[str, Any]] = []
    formatter = logs.JsonFormatter()

    class Collecting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(formatter.format(record)))

    handler, log = Collecting(), logging.getLogger("pranet.access")
    log.addHandler(handler)
    level = log.level
    log.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


async def stream_two_frames(running: Running) -> tuple[Any, list[Any]]:
    """Stream a good frame and a broken one; return the initial metadata and the outcomes."""
    messages = [
        pb.StreamRequest(config=pb.StreamConfig(policy=pb.POLICY_EVERY)),
        pb.StreamRequest(frame=pb.StreamFrame(frame_id=1, image=IMAGE)),
        pb.StreamRequest(frame=pb.StreamFrame(frame_id=2, image=IMAGE[:2000])),
    ]
    call = running.stub.SegmentStream(iter(messages), metadata=[("traceparent", TRACEPARENT)], timeout=PATIENCE)
    return await call.initial_metadata(), [answer.WhichOneof("outcome") async for answer in call]


def attributes(span: Span) -> dict[str, Any]:
    return {pair.key: pair.value.string_value or pair.value.int_value for pair in span.attributes}


async def test_a_rest_request_is_one_span_in_its_clients_trace_with_every_stage_under_it(receiver: Receiver) -> None:
    async with serving() as running:
        headers = {"traceparent": TRACEPARENT, "x-request-id": "case-7"}
        answer = await running.rest.post("/segment", content=IMAGE, headers=headers)
    request = receiver.named("POST /segment")
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
    assert answer.headers["traceparent"] == f"00-{TRACE_ID}-{request.span_id.hex()}-01"
    assert receiver.under(request) == EVERY_FRAME
    assert attributes(request) == {
        "pranet.request_id": "case-7",
        "http.response.status_code": 200,
        "http.request.method": "POST",
        "http.route": "/segment",
    }
    assert receiver.resource["service.name"] == "pranet"


async def test_the_spans_of_the_stages_last_as_long_as_the_answer_says(receiver: Receiver) -> None:
    async with serving() as running:
        answer = await running.rest.post("/segment", content=IMAGE)
    told = dict(re.findall(r"(\w+);dur=([\d.]+)", answer.headers["server-timing"]))
    request = receiver.named("POST /segment")
    for stage in EVERY_FRAME:
        span = receiver.named(stage)
        assert request.start_time_unix_nano <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= request.end_time_unix_nano
        assert (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6 == pytest.approx(
            float(told[stage]), abs=2e-3
        )


async def test_a_grpc_call_is_one_span_in_its_clients_trace_with_every_stage_under_it(receiver: Receiver) -> None:
    async with serving() as running:
        call = running.stub.Segment(pb.SegmentRequest(image=IMAGE), metadata=[("traceparent", TRACEPARENT)])
        await call
        metadata = dict(await call.initial_metadata())
    request = receiver.named("pranet.v1.SegmentationService/Segment")
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
    assert metadata["traceparent"] == f"00-{TRACE_ID}-{request.span_id.hex()}-01"
    assert receiver.under(request) == EVERY_FRAME


async def test_each_frame_of_a_stream_is_a_trace_of_its_own_linked_to_the_streams(receiver: Receiver) -> None:
    async with serving() as running:
        metadata, outcomes = await stream_two_frames(running)
    assert outcomes == ["mask", "error"]
    stream = receiver.named("pranet.v1.SegmentationService/SegmentStream")
    assert (stream.trace_id.hex(), stream.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
    assert dict(metadata)["traceparent"].split("-")[1:3] == [TRACE_ID, stream.span_id.hex()]
    good, broken = sorted(
        (span for span in receiver.spans if span.name == "frame"), key=lambda span: span.start_time_unix_nano
    )
    assert [span.links[0].span_id for span in (good, broken)] == [stream.span_id, stream.span_id]
    assert len({stream.trace_id, good.trace_id, broken.trace_id}) == 3
    assert (receiver.under(good), receiver.under(broken)) == (EVERY_FRAME, ["decode"])
    assert (good.status.code, broken.status.code) == (Status.STATUS_CODE_UNSET, Status.STATUS_CODE_ERROR)
    assert attributes(broken) == {"error.type": "undecodable-image"}


async def test_a_websocket_stream_takes_a_trace_up_and_tells_its_own(receiver: Receiver) -> None:
    async with serving() as running:
        uri = f"ws://127.0.0.1:{running.port}/stream"
        async with connect(uri, additional_headers={"traceparent": TRACEPARENT}) as socket, asyncio.timeout(PATIENCE):
            told = socket.response.headers["traceparent"] if socket.response else ""
            await socket.send(json.dumps({"policy": "every"}))
            head = json.dumps({"frame_id": 1}).encode()
            await socket.send(LENGTH.pack(len(head)) + head + IMAGE)
            await socket.recv()
            await socket.send(json.dumps({"end": True}))
            await socket.wait_closed()
    stream = receiver.named("WS /stream")
    assert stream.trace_id.hex() == TRACE_ID
    assert told == f"00-{TRACE_ID}-{stream.span_id.hex()}-01"
    assert receiver.under(receiver.named("frame")) == EVERY_FRAME


async def test_what_the_sampler_passes_over_is_not_sent(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    async with serving() as running:
        await running.rest.post("/segment", content=IMAGE, headers={"traceparent": TRACEPARENT})
        answer = await running.rest.post("/segment", content=IMAGE)
        await stream_two_frames(running)
    assert not int(answer.headers["traceparent"][-2:], 16) & 1  # W3C: the sampled flag
    calls = [span.name for span in receiver.spans if span.name not in STAGES]
    assert sorted(calls) == ["POST /segment", "pranet.v1.SegmentationService/SegmentStream"]


async def test_a_refused_frame_leaves_the_stages_it_went_through_and_its_cause(receiver: Receiver) -> None:
    async with serving() as running:
        await running.rest.post("/segment", content=IMAGE[:2000])
    request = receiver.named("POST /segment")
    assert receiver.under(request) == ["decode"]
    assert attributes(request)["http.response.status_code"] == 422
    assert attributes(request)["error.type"] == "undecodable-image"


async def test_a_failure_of_the_service_marks_its_span(receiver: Receiver) -> None:
    def fail(frames: Any) -> None:
        raise ArithmeticError

    async with serving(RedPredictor(before=fail)) as running:
        await running.rest.post("/segment", content=IMAGE)
    request = receiver.named("POST /segment")
    assert request.status.code == Status.STATUS_CODE_ERROR
    assert attributes(request)["error.type"] == "inference-failed"


async def test_nothing_that_a_client_wrote_stands_in_a_trace(receiver: Receiver) -> None:
    secret = "Mueller-Hans-1950"
    async with serving() as running:
        await running.rest.post(f"/segment?output={secret}", content=IMAGE)
        await running.rest.post("/segment", files={"file": (f"{secret}.jpg", IMAGE)})
        state = {"traceparent": TRACEPARENT, "tracestate": f"x={secret}"}
        await running.rest.post(f"/{secret}", content=IMAGE, headers=state)
        await running.rest.request("PROPFIND", "/segment")
    sent = b"".join(span.SerializeToString() for span in receiver.spans)
    names = [span.name for span in receiver.spans if span.name not in STAGES]
    assert names == ["POST /segment", "POST /segment", "POST", "HTTP /segment"]
    assert secret.encode() not in sent
    assert IMAGE[:64] not in sent


async def test_the_frameworks_own_traces_stay_off_wherever_they_would_go(patched: Patches) -> None:
    theirs, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(theirs))
    patched(trace, "get_tracer_provider", lambda: provider)
    async with serving() as running:
        await running.rest.post("/segment?output=mask", content=IMAGE)
    assert theirs.get_finished_spans() == ()
    plain = httpx.ASGITransport(FastAPI())
    async with httpx.AsyncClient(transport=plain, base_url="http://plain") as client:
        await client.get("/")
    assert theirs.get_finished_spans() != ()


async def test_what_polls_for_ever_leaves_no_trace_and_no_line_in_the_log(receiver: Receiver) -> None:
    of_the_protocol = ("/v2/health/live", "/v2/health/ready", "/v2/models/pranet/ready")
    async with serving() as running:
        with json_log() as lines:
            for path in ("/livez", "/readyz", "/metrics", *of_the_protocol):
                (await running.rest.get(path)).raise_for_status()
    assert (receiver.spans, lines) == ([], [])


async def test_json_logs_name_request_and_trace(receiver: Receiver) -> None:
    async with serving() as running:
        with json_log() as lines:
            await running.rest.post("/segment", content=IMAGE, headers={"x-request-id": "case-7"})
            await running.stub.Segment(pb.SegmentRequest(image=IMAGE, request_id="case-8"))
    rest = receiver.named("POST /segment")
    rpc = receiver.named("pranet.v1.SegmentationService/Segment")
    ids = [(line["request_id"], line["trace_id"]) for line in lines]
    assert ids == [("case-7", rest.trace_id.hex()), ("case-8", rpc.trace_id.hex())]


async def test_without_tracing_logs_still_name_the_clients_trace() -> None:
    async with serving() as running:
        with json_log() as lines:
            answer = await running.rest.post("/segment", content=IMAGE, headers={"traceparent": TRACEPARENT})
            await running.rest.post("/segment", content=IMAGE, headers={"traceparent": "00-" + "0" * 32 + "-1-01"})
    assert lines[0]["trace_id"] == TRACE_ID
    assert "trace_id" not in lines[1]
    assert "traceparent" not in answer.headers


async def test_a_receiver_that_is_gone_harms_no_answer_and_holds_up_no_end(
    monkeypatch: pytest.MonkeyPatch, patched: Patches
) -> None:
    patched(tracing, "FLUSH_SECONDS", 0.2)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "600")
    async with asyncio.timeout(PATIENCE):  # the SDK's own patience at the end is longer
        async with serving(otlp_endpoint="http://127.0.0.1:1") as running:
            for _ in range(3):
                assert (await running.rest.post("/segment", content=IMAGE)).status_code == 200
    assert "OtelBatchSpanRecordProcessor" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(
    ("variables", "flag", "expected"),
    [
        ({}, None, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4317"}, None, "http://a:4317"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4317"}, "http://b:4317", "http://b:4317"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t:4317"}, None, "http://t:4317"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4317", "OTEL_SDK_DISABLED": "true"}, None, None),
        ({"OTEL_TRACES_EXPORTER": "none"}, "http://b:4317", None),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http://b:4317", "http://b:4317"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "http://b:4318/", "http://b:4318/v1/traces"),
        (
            {
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t:4318/traces",
            },
            None,
            "http://t:4318/traces",
        ),
    ],
)
def test_traces_go_where_the_setting_or_opentelemetrys_variables_say(
    variables: dict[str, str], flag: str | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    receiver = Settings(otlp_endpoint=flag).trace_receiver
    assert (receiver and receiver.url) == expected


def test_a_protocol_that_is_not_supported_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    with pytest.raises(SettingsError, match="grpc or http/protobuf"):
        _ = Settings(otlp_endpoint="http://a:4318").trace_receiver


async def test_traces_go_over_http_if_opentelemetrys_variable_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    with receiving_over_http() as (receiver, endpoint):
        async with serving(otlp_endpoint=endpoint) as running:
            assert (await running.rest.post("/segment", content=IMAGE)).status_code == 200
        assert receiver.under(receiver.named("POST /segment")) == EVERY_FRAME
        assert receiver.resource["service.name"] == "pranet"


def test_a_server_that_traces_nothing_imports_neither_sdk_nor_exporter() -> None:
    code = (
        "import sys, service.app; print(*(name for name in sys.modules if name.startswith("
        "('opentelemetry.sdk', 'opentelemetry.exporter'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
