"""One frame through the whole service, on both protocols, with each kind of answer."""

import asyncio
import gc
import io
import itertools
import math
from collections.abc import AsyncIterator
from dataclasses import replace

import cv2
import httpx
import numpy as np
import pytest
from PIL import Image

from model.presence import Presence
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from service import app
from tests.support.pictures import SAMPLES, dice, encoded, mask_of, red_box
from tests.support.predictors import RedPredictor
from tests.support.serving import Running, serving, until

BOX = (40, 30, 200, 150)
PICTURE = encoded(red_box(320, 200, BOX))
EXPECTED = np.asarray(red_box(320, 200, BOX))[..., 0] > 0


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with serving() as running:
        yield running


async def test_rest_and_grpc_answer_the_same_mask(running: Running) -> None:
    over_rest = await running.rest.post("/segment", content=PICTURE)
    over_grpc = await running.stub.Segment(pb.SegmentRequest(image=PICTURE))
    assert over_rest.content == over_grpc.png
    assert dice(mask_of(over_rest.content), EXPECTED) > 0.98


async def test_a_multipart_form_is_answered_as_a_raw_body(running: Running) -> None:
    form = await running.rest.post("/segment", files={"file": ("frame.png", PICTURE, "image/png")})
    raw = await running.rest.post("/segment", content=PICTURE)
    assert (form.status_code, form.content) == (200, raw.content)


async def test_every_request_is_counted_in_the_one_registry_that_is_scraped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "many")  # how other servers are told to fork
    async with serving() as running:
        for _ in range(5):
            async with httpx.AsyncClient(base_url=running.rest.base_url, trust_env=False) as client:
                assert (await client.post("/segment", content=PICTURE)).status_code == 200
        text = (await running.rest.get("/metrics")).text
        assert 'pranet_requests_total{code="200",transport="rest"} 5.0' in text


async def test_every_answer_names_its_request_its_weights_and_its_times(running: Running) -> None:
    answer = await running.rest.post("/segment", content=PICTURE, headers={"x-request-id": "frame-7"})
    assert answer.headers["x-request-id"] == "frame-7"
    assert answer.headers["x-model"] == RedPredictor.model.model_id
    stages = [part.split(";")[0] for part in answer.headers["server-timing"].split(", ")]
    assert stages == ["decode", "preprocess", "queue", "infer", "post", "encode", "total"]


async def test_json_describes_the_mask_that_png_shows(running: Running) -> None:
    answer = (await running.rest.post("/segment", content=PICTURE, headers={"accept": "application/json"})).json()
    mask = mask_of((await running.rest.post("/segment", content=PICTURE)).content)
    counts = answer["rle"]["counts"]
    decoded = np.repeat([index % 2 for index in range(len(counts))], counts).reshape(mask.shape, order="F")
    assert np.array_equal(decoded > 0, mask)
    (polyp,) = answer["polyps"]
    assert polyp["area_fraction"] == pytest.approx(mask.mean())


@pytest.mark.parametrize(
    ("picture", "problems"),
    [
        (SAMPLES[0].read_bytes(), []),
        (encoded(Image.new("RGB", (64, 48))), ["black"]),
        (encoded(Image.new("RGB", (64, 48), "white")), ["saturated", "blurred"]),
        (encoded(Image.new("RGB", (64, 48), (40, 40, 40))), ["too_dark", "blurred"]),
    ],
    ids=["good", "black", "white", "grey"],
)
async def test_problems_of_a_picture_are_named_where_its_answer_has_room_for_them(
    picture: bytes, problems: list[str], running: Running
) -> None:
    answers = {
        output: await running.rest.post("/segment", content=picture, params={"output": output})
        for output in ("json", "probability", "mask")
    }
    assert answers["json"].json()["quality"] == problems
    for output in ("json", "probability"):
        assert answers[output].headers.get("x-quality", "") == ", ".join(problems)
    assert "x-quality" not in answers["mask"].headers


@pytest.mark.parametrize("weights_have_a_score", [True, False])
async def test_the_presence_score_comes_with_every_answer_where_the_weights_have_one(
    weights_have_a_score: bool,
) -> None:
    predictor = RedPredictor()
    calibration = Presence(scale=0.5, offset=-1.0, threshold=0.4)
    predictor.model = replace(predictor.model, presence=calibration if weights_have_a_score else None)
    brightest = (255 - 127.5) / 16
    expected = 1 / (1 + math.exp(1.0 - 0.5 * brightest))
    async with serving(predictor) as it:
        body = (await it.rest.post("/segment", content=PICTURE, params={"output": "json"})).json()
        answer = await it.stub.Segment(pb.SegmentRequest(image=PICTURE))
        headers = (await it.rest.post("/segment", content=PICTURE)).headers
    assert answer.HasField("presence") is weights_have_a_score
    assert headers.get("x-presence") == (f"{expected:.3f};threshold=0.4" if weights_have_a_score else None)
    if weights_have_a_score:
        assert body["presence"] == {"score": pytest.approx(expected, rel=1e-4), "threshold": 0.4}
        assert (answer.presence.score, answer.presence.threshold) == pytest.approx((expected, 0.4), rel=1e-4)
    else:
        assert body["presence"] is None


@pytest.mark.parametrize(
    ("score", "threshold", "header"),
    [
        (0.4996, 0.5, "0.499;threshold=0.5"),
        (0.5, 0.5, "0.500;threshold=0.5"),
        (0.4136, 0.4137, "0.413;threshold=0.414"),
        (0.41344, 0.4134, "0.413;threshold=0.413"),
        (0.41346, 0.41345, "0.413;threshold=0.413"),
    ],
)
async def test_rounding_the_presence_score_never_changes_what_it_says(
    score: float, threshold: float, header: str
) -> None:
    predictor = RedPredictor()
    predictor.model = replace(predictor.model, presence=Presence(0.0, math.log(score / (1 - score)), threshold))
    async with serving(predictor) as it:
        assert (await it.rest.post("/segment", content=PICTURE)).headers["x-presence"] == header


@pytest.mark.parametrize(("depth", "mode"), [("8", "L"), ("16", "I;16")])
async def test_a_probability_crosses_half_scale_where_the_mask_ends(running: Running, depth: str, mode: str) -> None:
    answer = await running.rest.post("/segment", content=PICTURE, params={"output": "probability", "depth": depth})
    picture = Image.open(io.BytesIO(answer.content))
    assert picture.mode == mode
    mask = mask_of((await running.rest.post("/segment", content=PICTURE)).content)
    assert dice(np.asarray(picture) > (2 ** int(depth) - 1) / 2, mask) > 0.999


async def test_an_overlay_is_the_picture_with_its_polyps_tinted(running: Running) -> None:
    answer = await running.rest.post("/segment", content=PICTURE, params={"output": "overlay"})
    drawn = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert drawn.shape == (200, 320, 3)
    assert tuple(drawn[5, 5]) == (0, 0, 0)
    assert drawn[90, 120, 1] > 0


async def test_a_region_is_answered_in_the_geometry_of_the_whole_frame(running: Running) -> None:
    answer = await running.rest.post("/segment", content=PICTURE, params={"roi": "100,50,150,120"})
    mask = mask_of(answer.content)
    inside = np.zeros_like(mask)
    inside[50:170, 100:250] = True
    assert dice(mask, EXPECTED & inside) > 0.98


async def test_auto_leaves_out_the_black_surround(running: Running) -> None:
    frame = Image.new("RGB", (400, 300))
    frame.paste((90, 60, 60), (100, 50, 300, 250))
    frame.paste((255, 60, 60), (100, 50, 200, 250))
    answer = await running.rest.post("/segment", content=encoded(frame), params={"roi": "auto"})
    mask = mask_of(answer.content)
    assert mask.shape == (300, 400)
    assert dice(mask, np.asarray(frame)[..., 0] > 128) > 0.98


async def test_a_threshold_of_zero_marks_all_and_one_marks_nothing(running: Running) -> None:
    shares = [
        mask_of((await running.rest.post("/segment", content=PICTURE, params={"threshold": t})).content).mean()
        for t in (0, 0.5, 1)
    ]
    assert shares[0] == 1
    assert shares[2] == 0
    assert all(lower >= higher for lower, higher in itertools.pairwise(shares))


def test_a_frame_takes_one_core() -> None:
    assert cv2.getNumThreads() == 1


async def test_what_is_there_before_the_first_request_is_not_searched_for_garbage_again(running: Running) -> None:
    ports = (running.port, running.grpc_port)
    gc.unfreeze()
    living = asyncio.create_task(app._serve_and_reload(running.service, RedPredictor(), ports, asyncio.Event()))
    try:
        await until(lambda: gc.get_freeze_count() > 0)
    finally:
        living.cancel()
