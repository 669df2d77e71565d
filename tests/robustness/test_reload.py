"""Weights change while the service runs: no request is lost, and every answer names the weights that made it."""

import asyncio
import contextlib
import os
import signal
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from model.weights import checkpoint
from model.weights.weights_file import CheckpointError
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc
from tests.support import processes
from tests.support.pictures import SAMPLES, Mask, dice, encoded, mask_of, red_box
from tests.support.predictors import BluePredictor, RedPredictor
from tests.support.processes import Server
from tests.support.serving import PATIENCE, Running, serving, until

PICTURE = encoded(red_box(64, 48, (8, 8, 40, 40)))
JPEG = SAMPLES[0].read_bytes()
LAST_BIAS = "ra2_conv4.bn.bias"  # is added to every logit of S3
CLIENTS = 3  # of each protocol
MINUTES = 180  # seconds that a real server may take on a busy machine


async def named(it: Running) -> set[str]:
    """Collect the model id from everywhere that names one."""
    answer = await it.rest.post("/segment", content=PICTURE, headers={"accept": "application/json"})
    over_grpc = await it.stub.Segment(pb.SegmentRequest(image=PICTURE))
    info = (await it.rest.get("/info")).json()
    model_info = await it.stub.GetModelInfo(pb.GetModelInfoRequest())
    families = text_string_to_metric_families((await it.rest.get("/metrics")).text)
    (sample,) = next(family.samples for family in families if family.name == "pranet_model_info")
    names = answer.headers["x-model"], answer.json()["model"]["model_id"], over_grpc.model.model_id
    return {*names, info["model"]["model_id"], model_info.model.model_id, sample.labels["model_id"]}


def reloads(it: Running) -> tuple[float, float]:
    taken, refused = (it.metric("pranet_weights_reloads_total", {"outcome": name}) for name in ("taken", "refused"))
    return taken, refused


async def test_everything_that_names_the_weights_names_the_new_ones_after_a_reload(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(load=BluePredictor) as it:
        assert await named(it) == {"red-00000000"}
        assert await it.service.model_slot.reload()
        assert await named(it) == {"blue-11111111"}
        assert "reloaded: blue-11111111 in fp32 replaces red-00000000 in fp32" in caplog.text
        assert reloads(it) == (1, 0)
        assert it.metric("pranet_weights_current") == 1
        assert not mask_of((await it.rest.post("/segment", content=PICTURE)).content).any()  # nothing is blue in it


def fail_to_load() -> RedPredictor:
    raise CheckpointError(Path("new.safetensors"), "is empty")


def fail_to_warm_up() -> RedPredictor:
    def fail(max_batch_size: int) -> None:
        raise MemoryError

    return BluePredictor(warm_up=fail)


def overflow() -> RedPredictor:
    return BluePredictor(after=lambda frames, logits: logits * np.inf)


@pytest.mark.parametrize("load", [fail_to_load, fail_to_warm_up, overflow])
async def test_weights_that_cannot_serve_leave_the_old_ones_serving(
    load: Callable[[], RedPredictor], caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(load=load) as it:
        assert not await it.service.model_slot.reload()
        assert "red-00000000 stays in use" in caplog.text
        assert await named(it) == {"red-00000000"}
        assert (await it.rest.get("/readyz")).status_code == 200
        assert reloads(it) == (0, 1)
        assert it.metric("pranet_weights_current") == 0


async def test_requests_are_answered_while_new_weights_are_being_loaded() -> None:
    begun, permit = threading.Event(), threading.Event()

    def load() -> RedPredictor:
        begun.set()
        assert permit.wait(PATIENCE)
        return BluePredictor()

    async with serving(load=load) as it:
        reloading = asyncio.create_task(it.service.model_slot.reload())
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        assert await named(it) == {"red-00000000"}
        permit.set()
        assert await reloading


@pytest.mark.parametrize("slots", [1, 2])
async def test_the_old_weights_are_freed_when_their_last_batch_is_answered(slots: int) -> None:
    predictor = RedPredictor(slots=slots)
    old = weakref.ref(predictor)
    async with serving(predictor, load=lambda: BluePredictor(slots=slots)) as it:
        del predictor
        await asyncio.gather(*(it.rest.post("/segment", content=PICTURE) for _ in range(4)))
        assert await it.service.model_slot.reload()
        await until(lambda: old() is None)


@dataclass
class Answers:
    """What clients that never stop asking were answered: each mask with the weights that it names."""

    masks: dict[str, list[Mask]] = field(default_factory=dict)

    def add(self, model_id: str, png: bytes) -> None:
        self.masks.setdefault(model_id, []).append(mask_of(png))

    def count(self, model_id: str) -> int:
        return len(self.masks.get(model_id, []))


@contextlib.asynccontextmanager
async def asking(server: Server) -> AsyncIterator[Answers]:
    """Ask over both protocols without a pause; any failure fails the block."""
    answers = Answers()
    stop = asyncio.Event()

    async def over_rest(client: httpx.AsyncClient) -> None:
        while not stop.is_set():
            answer = (await client.post("/segment", content=JPEG)).raise_for_status()
            answers.add(answer.headers["x-model"], answer.content)

    async def over_grpc(stub: pb_grpc.SegmentationServiceStub) -> None:
        while not stop.is_set():
            answer = await stub.Segment(pb.SegmentRequest(image=JPEG), timeout=MINUTES)
            answers.add(answer.model.model_id, answer.png)

    async with (
        httpx.AsyncClient(base_url=server.url, timeout=MINUTES, trust_env=False) as client,
        grpc.aio.insecure_channel(server.grpc_address) as channel,
        asyncio.timeout(MINUTES),
        asyncio.TaskGroup() as group,
    ):
        stub = pb_grpc.SegmentationServiceStub(channel)
        for _ in range(CLIENTS):
            group.create_task(over_rest(client))
            group.create_task(over_grpc(stub))
        yield answers
        stop.set()


async def seen(answers: Answers, model_id: str, times: int = 2 * CLIENTS) -> None:
    """Wait for some more answers of these weights."""
    enough = answers.count(model_id) + times
    while answers.count(model_id) < enough:  # noqa: ASYNC110 - many tasks count
        await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def variants(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Write the bundled weights twice, the second time a little in favour of polyps."""
    folder = tmp_path_factory.mktemp("weights")
    bundled = checkpoint.load(weights)
    for name, bias in (("one", 0.0), ("two", 4.0)):
        state = {**bundled.state, LAST_BIAS: bundled.state[LAST_BIAS] + bias}
        checkpoint.save(folder / name, state, "int8", {**bundled.metadata, "name": name})
    return folder / "one", folder / "two"


def put(content: bytes, file: Path) -> None:
    """Replace a file as a careful operator does: nobody sees it half written."""
    file.with_suffix(".new").write_bytes(content)
    os.replace(file.with_suffix(".new"), file)


def maps(server: Server) -> httpx.Response:
    url = f"{server.url}/segment?output=maps"
    return httpx.post(url, content=JPEG, timeout=MINUTES, trust_env=False).raise_for_status()


def serving_now(server: Server) -> str:
    info = httpx.get(f"{server.url}/info", timeout=MINUTES, trust_env=False).json()
    return str(info["model"]["model_id"])


@pytest.mark.slow
async def test_under_load_sighup_changes_the_weights_between_two_answers_and_fails_none(
    variants: tuple[Path, Path], tmp_path: Path
) -> None:
    one, two = (checkpoint.load(file).model_id for file in variants)
    file, log = tmp_path / "weights", tmp_path / "log"
    put(variants[0].read_bytes(), file)
    with log.open("w") as lines, processes.server("--weights", file, stderr=lines) as server:
        async with asking(server) as answers:
            await seen(answers, one)
            put(b"no weights at all", file)
            server.process.send_signal(signal.SIGHUP)
            while "the reload failed" not in log.read_text():
                await seen(answers, one, times=1)
            put(variants[1].read_bytes(), file)
            server.process.send_signal(signal.SIGHUP)
            await seen(answers, two)
            await until(lambda: processes.everywhere(lambda: serving_now(server) == two))
        assert (await asyncio.to_thread(maps, server)).headers["x-model"] == two
    assert set(answers.masks) == {one, two}
    first, second = answers.masks[one][0], answers.masks[two][0]
    assert dice(first, second) < 0.98
    for model_id, expected in ((one, first), (two, second)):
        assert min(dice(mask, expected) for mask in answers.masks[model_id]) > 0.999


@pytest.mark.slow
async def test_sigterm_ends_a_service_whose_new_weights_never_finish_loading(weights: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.symlink_to(weights)
    with processes.server("--weights", file) as server:
        file.unlink()
        os.mkfifo(file)
        server.process.send_signal(signal.SIGHUP)
        writer = await asyncio.to_thread(file.open, "wb")  # opens when the service reads
        server.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.process.wait, PATIENCE) == 0
        writer.close()
