"""Weights are replaced between the batches of one answer: all of it comes from the same weights, which it names."""

import asyncio
import math
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from model.transforms import Pixels
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from service.frames.frame import Options, Output
from service.oip.inference import infer
from tests.support.dicom_objects import DICOM, dicom, needs_dicom, segmentation, written
from tests.support.pictures import encoded, mask_of, red_box
from tests.support.predictors import PATIENCE, BluePredictor, RedPredictor
from tests.support.serving import Running, serving

PICTURE = encoded(red_box(64, 48, (8, 8, 40, 40)))


class Reloading:
    """Weights that are replaced while they compute their first batch of a red picture."""

    def __init__(self) -> None:
        self.begun, self.replaced = threading.Event(), threading.Event()
        self.predictor = RedPredictor(self._wait)

    def _wait(self, frames: Pixels) -> None:
        if frames[:, 0].max() > 200 and frames[:, 2].max() < 100:
            self.begun.set()
            assert self.replaced.wait(PATIENCE)

    async def replace(self, it: Running) -> None:
        assert await it.service.model_slot.reload()
        self.replaced.set()


@pytest.fixture
def reloading() -> Iterator[Reloading]:
    made = Reloading()
    yield made
    made.replaced.set()


async def until_begun(reloading: Reloading) -> None:
    assert await asyncio.to_thread(reloading.begun.wait, PATIENCE)


async def test_the_outputs_of_an_inference_request_come_from_the_same_weights(reloading: Reloading) -> None:
    async with serving(reloading.predictor, load=BluePredictor, max_batch_size=1) as it:
        asked = infer(it.service.segmenter, [PICTURE] * 3, Options(arrays=(Output.MASK,)), math.inf)
        answering = asyncio.create_task(asked)
        await until_begun(reloading)
        await reloading.replace(it)
        answers = await answering
    assert [answer.model.model_id for answer in answers] == ["blue-11111111"] * 3
    assert not any(np.any(answer.arrays[Output.MASK]) for answer in answers)  # nothing is blue in them


@needs_dicom
async def test_the_frames_of_a_dicom_segmentation_come_from_the_same_weights(reloading: Reloading) -> None:
    boxes = [red_box(64, 48, (8, 8, 40, 40))] * 3
    async with serving(reloading.predictor, load=BluePredictor, max_batch_size=1) as it:
        headers = {**DICOM, "accept": "application/dicom"}
        asked = it.rest.post("/segment?omit_empty=false", content=written(dicom(boxes)), headers=headers)
        answering = asyncio.create_task(asked)
        await until_begun(reloading)
        await reloading.replace(it)
        answer = await answering
    assert answer.status_code == 200, answer.text
    made = segmentation(answer.content)
    assert "blue-11111111" in made.get_segment_description(1).algorithm_identification.version
    assert made.NumberOfFrames == 3
    assert not made.pixel_array.any()


async def test_smoothing_begins_anew_with_new_weights() -> None:
    async with serving(load=BluePredictor) as it:
        call = it.stub.SegmentStream()
        await call.write(pb.StreamRequest(config=pb.StreamConfig(policy=pb.POLICY_EVERY, smoothing_ms=2000)))
        seen = []
        for number in range(2):
            frame = pb.StreamFrame(frame_id=number, image=PICTURE, capture_time_us=number * 40_000)
            await call.write(pb.StreamRequest(frame=frame))
            answer = await call.read()
            seen.append((answer.mask.model.model_id, bool(mask_of(answer.mask.png).any())))
            if not number:
                assert await it.service.model_slot.reload()
        await call.done_writing()
    assert seen == [("red-00000000", True), ("blue-11111111", False)]
