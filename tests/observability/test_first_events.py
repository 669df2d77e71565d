"""Counters begin at 0, so that the first event of each kind is an increase, and every failure is counted by cause."""

import json

from prometheus_client.parser import text_string_to_metric_families

from model.transforms import Pixels
from service.errors import causes
from service.observability.metrics import OUTCOMES
from tests.support.pictures import encoded, red_box
from tests.support.predictors import RedPredictor
from tests.support.serving import Running, serving
from tests.support.streaming import EVERY, frame, replies

PICTURE = encoded(red_box(64, 48, (16, 12, 48, 36)))


Series = tuple[str, frozenset[str]]  # name, and values of the labels


def series(name: str, *labels: str) -> Series:
    return name, frozenset(labels)


def fail(frames: Pixels) -> None:
    raise ArithmeticError("every frame")


async def exposed(it: Running) -> dict[Series, float]:
    text = (await it.rest.get("/metrics")).text
    families = text_string_to_metric_families(text)
    return {series(each.name, *each.labels.values()): each.value for family in families for each in family.samples}


async def test_series_whose_labels_are_known_begin_at_zero() -> None:
    async with serving(max_streams=2) as it:
        found = await exposed(it)
    expected = {series("pranet_rejected_total", cause.slug) for cause in causes()}
    for transport, codes in {
        "rest": ("200", "413", "429", "500", "503"),
        "websocket": ("401", "1000", "1002", "1011", "1013"),
        "grpc": ("OK", "INTERNAL", "RESOURCE_EXHAUSTED"),
        "grpc-stream": ("OK", "INTERNAL", "UNAVAILABLE"),
    }.items():
        expected |= {series("pranet_requests_total", transport, code) for code in codes}
        expected.add(series("pranet_request_duration_seconds_count", transport))
    for slot in ("0", "1"):
        expected |= {series(f"pranet_frames_{each}_total", slot) for each in ("received", "reused")}
        expected |= {series("pranet_frames_total", slot, outcome) for outcome in OUTCOMES}
    expected |= {series("pranet_frame_duration_seconds_count", each) for each in ("answered", "failed", "abandoned")}
    assert {key: found.get(key) for key in expected} == dict.fromkeys(expected, 0)
    assert series("pranet_frames_total", "2", "failed") not in found


async def test_slots_that_nobody_could_count_do_not_fill_the_answer() -> None:
    async with serving(max_streams=100_000) as it:
        assert len(await exposed(it)) < 3000


async def test_pictures_of_an_archive_that_fail_are_counted_by_cause() -> None:
    files = [("file", ("0.png", PICTURE)), ("file", ("1.png", b"no picture")), ("file", ("2.png", PICTURE))]
    async with serving(RedPredictor(before=fail)) as it:
        answer = await it.rest.post("/segment/batch", files=files)
        assert [json.loads(line)["status"] for line in answer.text.splitlines()] == [500, 415, 500]
        assert it.metric("pranet_rejected_total", {"reason": "inference-failed"}) == 2
        assert it.metric("pranet_rejected_total", {"reason": "unsupported-image"}) == 1
        assert it.metric("pranet_frame_duration_seconds_count", {"outcome": "failed"}) == 3
        assert it.metric("pranet_requests_total", {"transport": "rest", "code": "200"}) == 1


async def test_frames_of_a_stream_that_fail_are_counted_by_cause() -> None:
    async with serving(RedPredictor(before=fail)) as it:
        sent = [EVERY, frame(1, image=PICTURE), frame(2, image=b"no picture"), frame(3, image=PICTURE)]
        answers = await replies(it.stub.SegmentStream(iter(sent)))
        assert [answer.error.cause for answer in answers] == [
            "inference-failed",
            "unsupported-image",
            "inference-failed",
        ]
        assert it.metric("pranet_rejected_total", {"reason": "inference-failed"}) == 2
        assert it.metric("pranet_rejected_total", {"reason": "unsupported-image"}) == 1
        assert it.metric("pranet_frames_total", {"slot": "0", "outcome": "failed"}) == 3


async def test_a_request_is_counted_once_whatever_it_fails_for() -> None:
    async with serving(RedPredictor(before=fail)) as it:
        assert (await it.rest.post("/segment", content=PICTURE)).status_code == 500
        assert it.metric("pranet_rejected_total", {"reason": "inference-failed"}) == 1
