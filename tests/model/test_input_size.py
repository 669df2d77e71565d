"""A service whose network gets smaller pictures: everything behind it follows, and says so."""

import pytest

from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from service.frames import codec
from service.runtime import load_predictor
from service.settings import Settings
from tests.support.pictures import SAMPLES, annotation, dice, mask_of
from tests.support.serving import serving

CHOSEN = {"device": "cpu", "engine": "torch", "precision": "fp32", "input_size": 256}


async def test_a_smaller_input_finds_the_same_polyps_and_every_answer_names_its_size() -> None:
    async with serving(load_predictor(Settings.model_validate(CHOSEN)), **CHOSEN) as it:
        for sample in SAMPLES[:2]:
            answer = await it.rest.post("/segment", content=sample.read_bytes())
            assert dice(mask_of(answer.content), annotation(sample)) > 0.8
        described = (await it.rest.post("/segment", params={"output": "json"}, content=SAMPLES[0].read_bytes())).json()
        assert described["model"]["input_size"] == 256
        assert (await it.rest.get("/info")).json()["input_size"] == 256
        assert (await it.stub.GetModelInfo(pb.GetModelInfoRequest())).input_size == 256


@pytest.mark.long
@pytest.mark.slow
async def test_maps_and_a_reload_keep_the_input_size() -> None:
    async with serving(load_predictor(Settings.model_validate(CHOSEN)), **CHOSEN) as it:
        assert await it.service.model_slot.reload()
        answer = await it.rest.post("/segment", params={"output": "maps"}, content=SAMPLES[0].read_bytes())
        maps, truth = codec.read_mask(answer.content), annotation(SAMPLES[0])
        assert maps.shape == (truth.shape[0], 4 * truth.shape[1])
        assert dice(maps[:, -truth.shape[1] :] > 127, truth) > 0.8
        assert it.service.model.input_size == 256


@pytest.mark.parametrize("smoothing_ms", [0, 100])
async def test_streams_work_at_a_smaller_input(smoothing_ms: int) -> None:
    picture, truth = SAMPLES[0].read_bytes(), annotation(SAMPLES[0])
    config = pb.StreamConfig(policy=pb.POLICY_EVERY, smoothing_ms=smoothing_ms, hysteresis=smoothing_ms > 0)
    frames = [pb.StreamRequest(frame=pb.StreamFrame(frame_id=number, image=picture)) for number in (1, 2)]
    async with serving(load_predictor(Settings.model_validate(CHOSEN)), **CHOSEN) as it:
        responses = it.stub.SegmentStream(iter([pb.StreamRequest(config=config), *frames]))
        masks = [mask_of(response.mask.png) async for response in responses]
    assert [dice(mask, truth) > 0.8 for mask in masks] == [True, True]
