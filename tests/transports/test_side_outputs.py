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
from service.frames.side_outputs import SideOutputs
from tests.support.patching import Patches
from tests.support.pictures import ROOT, SAMPLES, encoded, red_box
from tests.support.serving import serving

WEIGHTS = ROOT / "weights" / "pranet.safetensors"
JPEG = SAMPLES[0].read_bytes()
MODEL = ModelRef("pranet", hashlib.sha256(WEIGHTS.read_bytes()).hexdigest(), "torch", "cpu", "fp32")


async def test_side_outputs_come_as_four_maps_side_by_side_and_the_last_is_the_answer() -> None:
    maps = codec.read_mask(await SideOutputs(WEIGHTS, max_image_pixels=10**6).render(JPEG, "full", MODEL))
    with Image.open(SAMPLES[0]) as picture:
        width, height = picture.size
    assert maps.shape == (height, 4 * width)
    s6, s3 = maps[:, :width], maps[:, 3 * width :]
    assert (s3 > 127).any()
    assert not np.array_equal(s6, s3)


async def test_outside_of_the_region_of_interest_the_maps_are_black() -> None:
    maps = codec.read_mask(await SideOutputs(WEIGHTS, max_image_pixels=10**6).render(JPEG, "0,0,100,90", MODEL))
    assert not maps[90:].any()


async def test_one_picture_is_at_work_at_a_time(patched: Patches) -> None:
    outputs = SideOutputs(WEIGHTS, max_image_pixels=10**6)
    begun, permit = threading.Event(), threading.Event()

    def held(*args: object) -> None:
        begun.set()
        permit.wait(20)
        raise ArithmeticError

    patched(outputs, "_network", held)
    first = asyncio.create_task(outputs.render(JPEG, "full", MODEL))
    assert await asyncio.to_thread(begun.wait, 20)
    with pytest.raises(QueueFull):
        await outputs.render(JPEG, "full", MODEL)
    permit.set()
    with pytest.raises(ArithmeticError):
        await first


async def test_maps_are_made_of_the_weights_that_answer_or_not_at_all() -> None:
    outputs = SideOutputs(WEIGHTS, max_image_pixels=10**6)
    with pytest.raises(NotReady, match="SIGHUP"):
        await outputs.render(JPEG, "full", replace(MODEL, weights_sha256="0" * 64))
    await outputs.render(JPEG, "full", MODEL)
    outputs.forget()
    assert outputs._loaded is None


async def test_maps_can_be_switched_off_and_load_nothing_until_they_are_asked_for() -> None:
    picture = encoded(red_box(32, 24, (0, 0, 9, 9)))
    async with serving(maps=False) as it:
        answer = await it.rest.post("/segment", params={"output": "maps"}, content=picture)
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:pranet:error:invalid-parameter")
    async with serving() as it:
        await it.rest.post("/segment", content=picture)
        assert it.service.side_outputs is not None
        assert it.service.side_outputs._loaded is None
        answer = await it.rest.post("/segment", params={"output": "maps"}, content=b"no picture at all")
        assert answer.status_code == 415
