import asyncio
import hashlib
import threading
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from model.engines.predictor import ModelRef
from service.errors import NotReady, QueueFull
from service.frames import codec
from service.frames.frame import Frame, Inference, Options, Output, prepare, render
from service.frames.side_outputs import SideOutputs
from tests.support.patching import Patches
from tests.support.pictures import ROOT, SAMPLES, encoded, red_box
from tests.support.predictors import RedPredictor, WhiteMaps
from tests.support.serving import PATIENCE, serving, until

WEIGHTS = ROOT / "weights" / "pranet.safetensors"
JPEG = SAMPLES[0].read_bytes()
MODEL = ModelRef("pranet", hashlib.sha256(WEIGHTS.read_bytes()).hexdigest(), "torch", "cpu", "fp32")


def frame(roi: str = "full", model: ModelRef = MODEL) -> Frame:
    """Return a frame that the network has seen."""
    made = Frame(source=JPEG, options=Options(output=Output.MAPS, roi=roi))
    prepare(made, 10**6)
    made.result = Inference(np.zeros((352, 352), np.float32), model)
    return made


async def test_side_outputs_come_as_four_maps_side_by_side_and_the_last_is_the_answer() -> None:
    seen = frame()
    await SideOutputs(WEIGHTS).add_to(seen)
    maps = codec.read_mask(render(seen).png)
    with Image.open(SAMPLES[0]) as picture:
        width, height = picture.size
    assert maps.shape == (height, 4 * width)
    s6, s3 = maps[:, :width], maps[:, 3 * width :]
    assert (s3 > 127).any()
    assert not np.array_equal(s6, s3)


async def test_the_maps_are_a_stage_of_their_own(patched: Patches) -> None:
    patched(SideOutputs, "_network", lambda *_: WhiteMaps)
    async with serving() as it:
        answer = await it.rest.post("/segment", params={"output": "maps"}, content=JPEG)
        plain = await it.rest.post("/segment", content=JPEG)
    stages = [part.split(";")[0] for part in answer.headers["server-timing"].split(", ")]
    assert stages == ["decode", "preprocess", "queue", "infer", "maps", "post", "encode", "total"]
    assert "maps" not in plain.headers["server-timing"]


async def test_outside_of_the_region_of_interest_the_maps_are_black() -> None:
    seen = frame(roi="0,0,100,90")
    await SideOutputs(WEIGHTS).add_to(seen)
    assert not codec.read_mask(render(seen).png)[90:].any()


async def test_one_picture_is_at_work_at_a_time(patched: Patches) -> None:
    outputs = SideOutputs(WEIGHTS)
    begun, permit = threading.Event(), threading.Event()

    def held(*args: object) -> None:
        begun.set()
        permit.wait(PATIENCE)
        raise ArithmeticError

    patched(outputs, "_network", held)
    first = asyncio.create_task(outputs.add_to(frame()))
    assert await asyncio.to_thread(begun.wait, PATIENCE)
    with pytest.raises(QueueFull):
        await outputs.add_to(frame())
    permit.set()
    with pytest.raises(ArithmeticError):
        await first


async def test_maps_are_made_of_the_weights_that_answer_or_not_at_all() -> None:
    outputs = SideOutputs(WEIGHTS)
    with pytest.raises(NotReady, match="SIGHUP"):
        await outputs.add_to(frame(model=replace(MODEL, weights_sha256="0" * 64)))
    await outputs.add_to(frame())
    outputs.forget()
    assert outputs._loaded is None


async def test_maps_can_be_switched_off_and_load_nothing_until_they_are_asked_for(patched: Patches) -> None:
    picture = encoded(red_box(32, 24, (0, 0, 9, 9)))
    loaded = patched(SideOutputs, "_network")
    async with serving(maps=False) as it:
        answer = await it.rest.post("/segment", params={"output": "maps"}, content=picture)
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:pranet:error:invalid-parameter")
    async with serving() as it:
        await it.rest.post("/segment", content=picture)
        answer = await it.rest.post("/segment", params={"output": "maps"}, content=b"no picture at all")
        assert (answer.status_code, loaded.count) == (415, 0)
        await it.rest.post("/segment", params={"output": "maps"}, content=picture)


async def test_maps_have_a_deadline_are_counted_and_are_waited_for_by_a_drain(patched: Patches) -> None:
    permit = threading.Event()

    def slow(*args: object) -> None:
        permit.wait(PATIENCE)
        raise ArithmeticError

    patched(SideOutputs, "_network", slow)
    picture = encoded(red_box(32, 24, (0, 0, 9, 9)))
    async with serving(RedPredictor()) as it:
        asking = asyncio.create_task(
            it.rest.post(
                "/segment", params={"output": "maps"}, content=picture, headers={"x-request-timeout-ms": "3000"}
            )
        )
        await until(lambda: it.service.segmenter.in_flight == 1)
        assert it.service.calls.unanswered  # what a drain waits for
        answer = await asking
        assert (answer.status_code, answer.json()["type"]) == (504, "urn:pranet:error:deadline-exceeded")
        assert it.metric("pranet_decodes_total") == 1
        assert it.metric("pranet_frame_duration_seconds_count", {"outcome": "failed"}) == 1
        assert it.metric("pranet_requests_total", {"transport": "rest", "code": "504"}) == 1
        permit.set()
