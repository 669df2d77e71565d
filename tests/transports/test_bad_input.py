"""Bad input: each case has its status, its problem type, and a sentence that says what to do."""

import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from PIL import Image
from PIL.ImageFile import ImageFile

from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from service.calls import Call
from service.frames import foreign
from service.http.middleware import REST
from tests.support import videos
from tests.support.cases.pictures import BAD, GOOD, packed, png_that_declares, zipped
from tests.support.patching import Patches
from tests.support.pictures import red_box
from tests.support.predictors import RedPredictor
from tests.support.serving import Running, serving

MEBIBYTE = 2**20


GRPC_STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
}

REQUESTS: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "threshold 2": (
        {"params": {"threshold": "2"}},
        422,
        "invalid-parameter",
        "threshold is 2, but it should be less",
    ),
    "threshold text": ({"params": {"threshold": "high"}}, 422, "invalid-parameter", "it should be a number"),
    "threshold underscore": (
        {"params": {"threshold": "0.2_5"}},
        422,
        "invalid-parameter",
        "is '0.2_5', but it should be",
    ),
    "threshold nan": ({"params": {"threshold": "nan"}}, 422, "invalid-parameter", "it should be a finite number"),
    "an unknown output": ({"params": {"output": "svg"}}, 422, "invalid-parameter", "it should be 'mask', 'prob"),
    "an unknown depth": ({"params": {"depth": "12"}}, 422, "invalid-parameter", "it should be 8 or 16"),
    "an unknown parameter": (
        {"params": {"treshold": "0.3"}},
        422,
        "invalid-parameter",
        "the known names are threshold, output",
    ),
    "a malformed region": ({"params": {"roi": "1,2,3"}}, 422, "invalid-parameter", "or x,y,w,h in pixels"),
    "a region outside": ({"params": {"roi": "0,0,65,48"}}, 422, "invalid-parameter", "not inside the picture of 64x48"),
    "an empty region": ({"params": {"roi": "0,0,0,48"}}, 422, "invalid-parameter", "of at least 1 pixel"),
    "a region of other digits": ({"params": {"roi": "\u0660,\u0660,\u0668,\u0668"}}, 422, "invalid-parameter", "roi"),
    "a JSON body": ({"headers": {"content-type": "application/json"}}, 415, "unsupported-image", "octet-stream"),
    "a form of text": (
        {"content": b"threshold=0.3", "headers": {"content-type": "application/x-www-form-urlencoded"}},
        415,
        "unsupported-image",
        "send JPEG, PNG",
    ),
    "text": ({"headers": {"content-type": "text/plain"}}, 415, "unsupported-image", "multipart/form-data"),
    "a zip by its type": (
        {"headers": {"content-type": "application/zip"}},
        415,
        "unsupported-image",
        "send it alone to POST /segment/batch",
    ),
    "a tar by its type": (
        {"headers": {"content-type": "application/x-tar"}},
        415,
        "unsupported-image",
        "send its pictures as a zip to POST",
    ),
    "a video by its type": (
        {"headers": {"content-type": "video/mp4"}},
        415,
        "unsupported-image",
        "stream its frames, see docs/live-video.md",
    ),
    "an unknown coding": ({"headers": {"content-encoding": "br"}}, 415, "coded-body", "one of gzip, deflate, or with"),
    "a body coded twice": ({"headers": {"content-encoding": "gzip, deflate"}}, 415, "coded-body", "gzip, deflate;"),
    "a coding that is not there": ({"headers": {"content-encoding": "gzip"}}, 400, "invalid-request", "not valid gzip"),
    "no time": ({"headers": {"x-request-timeout-ms": "0"}}, 400, "invalid-request", "above 0"),
    "a fraction of time": ({"headers": {"x-request-timeout-ms": "1.5"}}, 400, "invalid-request", "whole number"),
    "no time in many digits": ({"headers": {"x-request-timeout-ms": "0" * 5000}}, 400, "invalid-request", "above 0"),
    "two thresholds": (
        {"params": [("threshold", "0.1"), ("threshold", "0.9")]},
        422,
        "invalid-parameter",
        "give it once",
    ),
    "a name twice": (
        {"params": [("output", "mask"), ("output", "mask")]},
        422,
        "invalid-parameter",
        "output is given 2",
    ),
    "another route": ({"url": "/segmentation"}, 404, "unknown-route", "POST /segment"),
    "another method": ({"method": "PUT"}, 405, "method-not-allowed", "does not accept PUT; send POST"),
    "two dots": ({"url": "/pages/../../settings.py"}, 404, "unknown-route", "POST /segment"),
}

FORMS: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "another field": ({"files": {"image": GOOD}}, 400, "invalid-request", "part named 'file'"),
    "text for the file": ({"data": {"file": "text"}, "files": {"other": GOOD}}, 400, "invalid-request", "'file'"),
    "two files": ({"files": [("file", GOOD), ("file", GOOD)]}, 400, "invalid-request", "more than 1 file, or"),
    "nine fields": (
        {"files": {"file": GOOD}, "data": {str(number): "x" for number in range(9)}},
        400,
        "invalid-request",
        "one part",
    ),
    "a huge field": (
        {"files": {"file": GOOD}, "data": {"note": "x" * 2 * MEBIBYTE}},
        400,
        "invalid-request",
        "one part",
    ),
    "an empty file": ({"files": {"file": ("a.png", b"", "image/png")}}, 400, "invalid-request", "is empty"),
    "no boundary": (
        {"content": GOOD, "headers": {"content-type": "multipart/form-data"}},
        400,
        "invalid-request",
        "let your HTTP library write that header",
    ),
    "another boundary": (
        {"content": b"--a\r\n\r\n--a--\r\n", "headers": {"content-type": "multipart/form-data; boundary=b"}},
        400,
        "invalid-request",
        "one part",
    ),
    "an unfinished form": (
        {
            "content": b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc',
            "headers": {"content-type": "multipart/form-data; boundary=b"},
        },
        400,
        "invalid-request",
        "ends before its last boundary",
    ),
    "an unknown charset": (
        {
            "content": b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc\r\n--b--\r\n',
            "headers": {"content-type": "multipart/form-data; boundary=b; charset=klingon"},
        },
        400,
        "invalid-request",
        "the part 'file' has no file name",
    ),
}


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with serving(RedPredictor()) as running:
        yield running


async def assert_refused(running: Running, request: dict[str, Any], status: int, slug: str, advice: str) -> None:
    answer = await running.rest.request(**{"method": "POST", "url": "/segment", **request})
    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (status, f"urn:pranet:error:{slug}"), problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert advice in problem["detail"]
    assert running.metric("pranet_rejected_total", {"reason": slug}) == 1


@pytest.mark.parametrize("case", BAD)
async def test_a_bad_image_is_refused_alike_on_both_protocols(running: Running, case: str) -> None:
    make, status, slug, advice = BAD[case]
    await assert_refused(running, {"content": make()}, status, slug, advice)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.stub.Segment(pb.SegmentRequest(image=make()))
    assert caught.value.code() is GRPC_STATUS[status]
    assert advice in (caught.value.details() or "")
    assert dict(caught.value.trailing_metadata() or ())["pranet-error"] == slug


@pytest.mark.parametrize("case", REQUESTS)
async def test_a_bad_request_is_refused(running: Running, case: str) -> None:
    request, status, slug, advice = REQUESTS[case]
    await assert_refused(running, {"content": GOOD, **request}, status, slug, advice)


@pytest.mark.parametrize("case", FORMS)
async def test_a_bad_form_is_refused(running: Running, case: str) -> None:
    await assert_refused(running, *FORMS[case])


@pytest.mark.parametrize(
    ("request_", "advice"),
    [
        (pb.SegmentRequest(image=GOOD, threshold=2), "less than or equal to 1"),
        (pb.SegmentRequest(image=GOOD, threshold=float("nan")), "a finite number"),
        (pb.SegmentRequest(image=GOOD, output=99), "segmentation.proto"),
        (pb.SegmentRequest(image=GOOD, depth=12), "should be 8 or 16"),
        (pb.SegmentRequest(image=GOOD, roi="middle"), "or x,y,w,h in pixels"),
    ],
)
async def test_a_bad_parameter_is_refused_over_grpc(running: Running, request_: pb.SegmentRequest, advice: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.stub.Segment(request_)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert advice in (caught.value.details() or "")


@pytest.mark.parametrize("given", ["30001", "9" * 19, "9" * 5000, "0" * 5000 + "40000"])
async def test_more_time_than_there_is_becomes_all_there_is(running: Running, given: str) -> None:
    call = Call(transport=REST, name="HTTP", headers={}, timeout=given)
    async with running.service.calls.enter(call):
        assert call.deadline - call.arrived == pytest.approx(30)  # REQUEST_TIMEOUT_MS


async def test_a_long_wish_for_time_is_no_fault(running: Running) -> None:
    answer = await running.rest.post("/segment", content=GOOD, headers={"x-request-timeout-ms": "9" * 5000})
    assert answer.status_code == 200


async def test_a_declared_giant_is_refused_without_decoding(patched: Patches, running: Running) -> None:
    load = patched(ImageFile, "load")
    answer = await running.rest.post("/segment", content=png_that_declares(8000, 8000))
    assert (answer.status_code, load.count) == (413, 0)
    await running.rest.post("/segment", content=GOOD)
    assert load.count > 0


async def test_the_service_still_segments_after_all_of_them(running: Running) -> None:
    for make, status, *_ in BAD.values():
        assert (await running.rest.post("/segment", content=make())).status_code == status
    answer = await running.rest.post("/segment", content=GOOD)
    assert Image.open(io.BytesIO(answer.content)).size == (64, 48)
    assert running.metric("pranet_in_flight") == running.metric("pranet_queue_depth") == 0


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi", ".ts", ".mpg"])
def test_a_video_is_told_from_a_picture(suffix: str, tmp_path: Path) -> None:
    film = videos.write(tmp_path / f"v{suffix}", [red_box(64, 48, (8, 8, 40, 40))] * 3)
    assert foreign.kind_of(film.read_bytes()) == foreign.VIDEO


def test_an_archive_is_told_from_a_picture() -> None:
    empty = b"PK\5\6" + bytes(18)
    kinds = [foreign.kind_of(data) for data in (zipped(), empty, packed("w"), packed("w:gz"))]
    assert kinds == [foreign.ZIP, foreign.ZIP, foreign.TAR, foreign.GZIP]


@pytest.mark.parametrize("name", ["nothing", "text", "one byte", "a HEIC", "a still GIF", "half a PNG"])
def test_other_files_are_no_archives_or_videos(name: str) -> None:
    assert foreign.kind_of(BAD[name][0]()) is None
