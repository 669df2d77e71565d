"""``Accept`` chooses the answer by weights, wildcards and how specific they are (RFC 9110, section 12.5.1)."""

import io
import json
import time
import zipfile
from collections.abc import AsyncIterator

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

from service.http.accept import preferred, ranges
from tests.support.dicom_objects import PICTURES, dicom, needs_dicom, written
from tests.support.pictures import encoded, red_box
from tests.support.serving import Running, serving

PICTURE = encoded(red_box(64, 48, (16, 12, 48, 36)))
PNG, JSON, DICOM = "image/png", "application/json", "application/dicom"
NDJSON, MIXED, PROBLEM = "application/x-ndjson", "multipart/mixed", "application/problem+json"
# What Prometheus 2.55 sends.
SCRAPE = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.fixture
async def it() -> AsyncIterator[Running]:
    async with serving() as running:
        yield running


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", PNG),
        ("*/*", PNG),
        ("application/json", JSON),
        ("Application/JSON; charset=utf-8", JSON),
        ("image/png, application/json;q=0", PNG),
        ("image/png, application/json", PNG),
        ("image/png;q=0.5, application/json", JSON),
        ("image/png;q=0.5, application/json;Q=0.500", PNG),
        ("application/json, text/plain, */*", JSON),
        ("*/*;q=0.1, application/json;q=0", PNG),
        ("*/*, image/*;q=0.2", JSON),
        ("image/*;q=0, */*", JSON),
        ("image/avif,image/webp,image/apng,image/*,*/*;q=0.8", PNG),
        ('text/plain;of="a,application/json", image/*', PNG),
        ("image/png;q=.4, application/json;q=.5", JSON),
        ("image/png;q=0.8500, application/json;q=0.8", PNG),
        ("image/png;q=0.5, application/json;q=1.0000", JSON),
        ("image/png;q=5, application/json;q=9", PNG),
        ("image/png;q=0, *;q=.2", JSON),
        ("application/json;q=high", None),
        ("application/json;q=.", None),
        ("text/html", None),
        ("*/*;q=0", None),
    ],
)
def test_the_preferred_type_is_chosen(accept: str, chosen: str | None) -> None:
    assert preferred(accept, (PNG, JSON)) == chosen


def test_quotes_that_are_not_closed_cost_little() -> None:
    began = time.process_time()
    assert ranges('"' + '\\"' * 16_000)  # as long as a header may be
    assert time.process_time() - began < 1  # with a pattern that goes back at each quote, minutes


def test_a_weight_of_many_digits_costs_little() -> None:
    began = time.process_time()
    assert not ranges(f"*/*;q={'1' * 32_000}x")
    assert time.process_time() - began < 1  # with a pattern that goes back at each digit, seconds


@pytest.mark.parametrize(
    ("accept", "status", "kind"),
    [
        ("image/png, application/json;q=0", 200, PNG),
        ("application/json", 200, JSON),
        ("application/dicom;q=0, */*", 200, PNG),
        ("application/dicom, image/*", 200, PNG),
        ("application/dicom", 406, PROBLEM),
        ("text/html", 406, PROBLEM),
    ],
)
async def test_a_picture_is_answered_in_the_type_that_is_preferred(
    it: Running, accept: str, status: int, kind: str
) -> None:
    answer = await it.rest.post("/segment", content=PICTURE, headers={"accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (status, kind)


async def test_what_java_sends_by_itself_accepts_a_mask(it: Running) -> None:
    accept = "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"  # before the JDKs of 2024
    answer = await it.rest.post("/segment", content=PICTURE, headers={"accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (200, PNG)


async def test_several_fields_of_accept_count_as_one(it: Running) -> None:
    headers = [("accept", "image/png;q=0.1"), ("accept", "application/json")]
    assert (await it.rest.post("/segment", content=PICTURE, headers=headers)).headers["content-type"] == JSON


async def test_an_output_that_is_named_outdoes_accept(it: Running) -> None:
    for output, kind in (("mask", PNG), ("json", JSON)):
        answer = await it.rest.post("/segment", content=PICTURE, params={"output": output}, headers={"accept": "a/b"})
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)


@needs_dicom
@pytest.mark.parametrize(
    ("frames", "accept", "query", "kind"),
    [
        (1, "*/*", "", PNG),
        (1, "application/dicom;q=0, */*", "", PNG),
        (1, "application/dicom;q=0.4, image/png", "", PNG),
        (1, "application/dicom, image/png;q=0.4", "", DICOM),
        (1, "application/dicom, */*;q=0.1", "?output=mask", DICOM),
        (1, "application/json, application/dicom;q=0.9", "", JSON),
        (1, "application/json", "?output=mask", PNG),
        (1, "application/x-ndjson, image/png;q=0.5", "", PNG),
        (1, "application/x-ndjson", "", PROBLEM),
        (1, "multipart/mixed", "", PROBLEM),
        (3, "*/*", "", NDJSON),
        (3, "application/json", "", NDJSON),
        (3, "image/png, multipart/mixed;q=0.5", "", MIXED),
        (3, "image/png, multipart/mixed;q=0.5", "?output=overlay", MIXED),
        (3, "image/png, application/dicom;q=0.5", "", DICOM),
        (3, "application/dicom, application/x-ndjson", "?omit_empty=1", DICOM),
        (3, "image/png", "", PROBLEM),
        (3, "image/png", "?output=overlay", PROBLEM),
    ],
)
async def test_an_object_is_answered_in_the_type_that_is_preferred(
    it: Running, frames: int, accept: str, query: str, kind: str
) -> None:
    body = written(dicom(PICTURES[:frames]))
    answer = await it.rest.post(f"/segment{query}", content=body, headers={"accept": accept, "content-type": DICOM})
    assert answer.headers["content-type"].partition(";")[0] == kind
    assert answer.status_code == (406 if kind == PROBLEM else 200)


@pytest.mark.parametrize(
    ("accept", "kind", "field"),
    [
        ("*/*", NDJSON, "png"),
        ("application/json", NDJSON, "segmentation"),
        ("application/x-ndjson, multipart/mixed;q=0", NDJSON, "png"),
        ("application/x-ndjson, application/json;q=0.5", NDJSON, "png"),
        ("application/x-ndjson, application/json", NDJSON, "png"),
        ("application/x-ndjson;q=0.5, application/json", NDJSON, "segmentation"),
        ("multipart/*", MIXED, ""),
        ("multipart/mixed;q=0.5, application/x-ndjson", NDJSON, "png"),
        ("image/png", PROBLEM, "status"),
    ],
)
async def test_an_archive_is_answered_in_the_type_that_is_preferred(
    it: Running, accept: str, kind: str, field: str
) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("0.png", PICTURE)
    headers = {"accept": accept, "content-type": "application/zip"}
    answer = await it.rest.post("/segment/batch", content=archive.getvalue(), headers=headers)
    assert answer.headers["content-type"].partition(";")[0] == kind
    assert answer.status_code == (406 if kind == PROBLEM else 200)
    assert not field or field in json.loads(answer.text)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=x", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;q=0, */*", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;q=0.1,text/plain;version=1.0.0", "text/plain; version=1.0.0; charset=utf-8"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (SCRAPE, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
    ],
)
async def test_metrics_are_written_in_the_format_that_is_preferred(it: Running, accept: str, kind: str) -> None:
    await it.rest.post("/segment", content=PICTURE)
    answer = await it.rest.get("/metrics", headers={"accept": accept})
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition("; escaping")[0] == kind
    parse = openmetrics if "openmetrics" in kind else plain_text
    samples = {sample.name: sample.value for family in parse(answer.text) for sample in family.samples}
    assert samples["pranet_decodes_total"] >= 1
    assert not [name for name in samples if name.endswith("_created")]
