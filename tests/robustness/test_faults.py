"""What goes wrong with one frame harms nobody else: over both protocols, with one slot and with two."""

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from model.cores import usable_cores
from model.transforms import Floats, Pixels
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from service.frames import segmenter
from tests.support.patching import Patches
from tests.support.pictures import Mask, dice, encoded, mask_of, red_box
from tests.support.predictors import RedPredictor
from tests.support.serving import PATIENCE, Running, serving, until

SIZE = (64, 48)
BOXES = [(8 + 4 * number, 4, 24 + 4 * number, 20 + 4 * number) for number in range(6)]
NEIGHBOURS = [red_box(*SIZE, box) for box in BOXES]
POISON = red_box(*SIZE, (0, 0, 64, 48))
POISON.paste((255, 255, 0), (0, 0, 64, 48))  # yellow: what the predictors below stumble over
ALL = len(NEIGHBOURS) + 1
TOGETHER = {"max_batch_size": ALL, "max_queue_delay_ms": 1000}  # what is sent at once goes into one batch

slots = pytest.mark.parametrize("slots", [1, 2])


def poisonous(frames: Pixels) -> np.ndarray:
    """Tell which frames are poison."""
    return frames[:, 1].mean(axis=(1, 2)) > 100


class Gate:
    """Holds up batches with poison until it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.held = threading.Semaphore(0)

    def hold(self, frames: Pixels) -> None:
        if poisonous(frames).any():
            self.held.release()
            self.opened.wait(PATIENCE)

    async def holds(self) -> None:
        assert await asyncio.to_thread(self.held.acquire, timeout=PATIENCE)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


async def rest(running: Running, picture: Any, timeout_ms: int = 15_000) -> tuple[int, bytes]:
    headers = {"x-request-timeout-ms": str(timeout_ms)}
    answer = await running.rest.post("/segment", content=encoded(picture), headers=headers)
    return answer.status_code, answer.content


async def rpc(running: Running, picture: Any, seconds: float = 15) -> Mask:
    answer = await running.stub.Segment(pb.SegmentRequest(image=encoded(picture)), timeout=seconds)
    return mask_of(answer.png)


async def plugged(running: Running, gate: Gate, slots: int) -> list[asyncio.Task[tuple[int, bytes]]]:
    """Occupy every slot of the device with a frame that the gate holds."""
    plugs = []
    for _ in range(slots):
        plugs.append(asyncio.create_task(rest(running, POISON)))
        await gate.holds()
    return plugs


async def assert_answered(running: Running, around: Coroutine[Any, Any, Any]) -> Any:
    """Send every neighbour, half over each protocol, beside ``around``; return what that one came to."""
    asked = [rest(running, picture) for picture in NEIGHBOURS[::2]]
    called = [rpc(running, picture) for picture in NEIGHBOURS[1::2]]
    outcome, *answers = await asyncio.gather(around, *asked, *called, return_exceptions=True)
    masks = [mask_of(answer[1]) if isinstance(answer, tuple) else answer for answer in answers]
    for mask, picture in zip(masks, NEIGHBOURS[::2] + NEIGHBOURS[1::2], strict=True):
        assert dice(mask, np.asarray(picture)[..., 0] > 0) > 0.9
    assert running.metric("pranet_queue_depth") == running.metric("pranet_in_flight") == 0
    return outcome


@slots
async def test_a_frame_that_the_network_raises_on_fails_alone(slots: int) -> None:
    def stumble(frames: Pixels) -> None:
        if poisonous(frames).any():
            raise RuntimeError("poison")

    async with serving(RedPredictor(stumble, slots=slots), **TOGETHER) as running:
        status, body = await assert_answered(running, rest(running, POISON))
        assert (status, b"urn:pranet:error:inference-failed" in body) == (500, True)
        failed = await assert_answered(running, rpc(running, POISON))
        assert failed.code() is grpc.StatusCode.INTERNAL


@slots
async def test_a_frame_without_a_finite_answer_fails_alone(slots: int) -> None:
    def spoil(frames: Pixels, logits: Floats) -> Floats:
        logits[poisonous(frames), 7, 7] = np.nan
        return logits

    async with serving(RedPredictor(after=spoil, slots=slots), **TOGETHER) as running:
        status, body = await assert_answered(running, rest(running, POISON))
        assert (status, b"urn:pranet:error:inference-failed" in body) == (500, True)


@slots
async def test_a_frame_that_hangs_past_its_deadline_is_given_up_alone(slots: int, gate: Gate) -> None:
    predictor = RedPredictor(gate.hold, slots=slots)
    async with serving(predictor, hang_seconds=0.5, **TOGETHER) as running:
        status, body = await assert_answered(running, rest(running, POISON, timeout_ms=300))
        assert (status, b"urn:pranet:error:deadline-exceeded" in body) == (504, True)


async def test_a_hanging_frame_does_not_hold_up_the_other_slot(gate: Gate) -> None:
    async with serving(RedPredictor(gate.hold, slots=2)) as running:
        hanging = asyncio.create_task(rest(running, POISON))
        await gate.holds()
        assert await asyncio.gather(*(rest(running, picture) for picture in NEIGHBOURS))
        assert not hanging.done()
        gate.opened.set()
        assert (await hanging)[0] == 200


@slots
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
async def test_the_work_of_a_client_that_left_is_dropped(slots: int, protocol: str, gate: Gate) -> None:
    seen: list[int] = []

    def count_and_hold(frames: Pixels) -> None:
        seen.append(len(frames))
        gate.hold(frames)

    async with serving(RedPredictor(count_and_hold, slots=slots)) as running:
        plugs = await plugged(running, gate, slots)
        calls = [await leaver(running, protocol) for _ in range(3)]
        await until(lambda: running.metric("pranet_queue_depth") == 3)
        for call in calls:
            call.cancel() if isinstance(call, grpc.aio.Call) else call.close()
        await until(lambda: running.metric("pranet_in_flight") == slots)
        assert running.metric("pranet_queue_depth") == 0
        gate.opened.set()
        await asyncio.gather(*plugs)
        await assert_answered(running, rest(running, POISON))
        assert sum(seen) == slots + ALL  # nobody computed for those who left


async def leaver(running: Running, protocol: str) -> Any:
    """Send a frame over a connection that will be given up."""
    image = encoded(NEIGHBOURS[0])
    if protocol == "grpc":
        return running.stub.Segment(pb.SegmentRequest(image=image))
    _, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(b"POST /segment HTTP/1.1\r\nHost: pranet\r\nContent-Length: %d\r\n\r\n" % len(image) + image)
    return writer


@slots
async def test_a_full_queue_refuses_before_it_decodes(slots: int, gate: Gate, patched: Patches) -> None:
    async with serving(RedPredictor(gate.hold, slots=slots), max_queue_size=2, max_batch_size=1) as running:
        plugs = await plugged(running, gate, slots)
        waiting = [asyncio.create_task(rest(running, NEIGHBOURS[0])) for _ in range(2)]
        await until(lambda: running.metric("pranet_queue_depth") == 2)
        await until(lambda: len(running.service.segmenter._batcher) == 2)
        prepare = patched("service.frames.segmenter", "prepare")
        answer = await running.rest.post("/segment", content=encoded(NEIGHBOURS[0]))
        assert (answer.status_code, answer.json()["type"]) == (429, "urn:pranet:error:queue-full")
        assert int(answer.headers["retry-after"]) > 0
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await rpc(running, NEIGHBOURS[0])
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert int(dict(refused.value.trailing_metadata() or ())["retry-after"]) > 0
        assert prepare.count == 0
        assert not running.metric("pranet_frame_duration_seconds_count", {"outcome": "failed"})  # it was never accepted
        gate.opened.set()
        assert [status for status, _ in await asyncio.gather(*plugs, *waiting)] == [200] * (slots + 2)
        await rest(running, NEIGHBOURS[0])
        assert prepare.count == 1


@slots
async def test_waiting_ends_at_the_deadline_on_both_protocols(slots: int, gate: Gate) -> None:
    async with serving(RedPredictor(gate.hold, slots=slots)) as running:
        plugs = await plugged(running, gate, slots)
        status, body = await rest(running, NEIGHBOURS[0], timeout_ms=50)
        assert (status, b"urn:pranet:error:deadline-exceeded" in body) == (504, True)
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await rpc(running, NEIGHBOURS[0], seconds=0.2)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: running.metric("pranet_in_flight") == slots)
        assert running.metric("pranet_queue_depth") == 0
        gate.opened.set()
        assert [status for status, _ in await asyncio.gather(*plugs)] == [200] * slots


@pytest.mark.parametrize("step", [3600.0, -3600.0])
async def test_a_step_of_the_clock_changes_no_deadline(step: float, gate: Gate, patched: Patches) -> None:
    async with serving(RedPredictor(gate.hold)) as running:
        (plug,) = await plugged(running, gate, 1)
        waiting = asyncio.create_task(rest(running, NEIGHBOURS[0]))
        await until(lambda: len(running.service.segmenter._batcher) == 1)
        now = time.time
        patched(time, "time", lambda: now() + step)
        gate.opened.set()
        assert [status for status, _ in await asyncio.gather(plug, waiting)] == [200, 200]
        assert (await rest(running, NEIGHBOURS[0]))[0] == 200


async def test_the_service_s_own_limit_of_time_holds_for_all(gate: Gate) -> None:
    async with serving(RedPredictor(gate.hold), request_timeout_ms=100, hang_seconds=2) as running:
        assert (await rest(running, POISON, timeout_ms=15_000))[0] == 504
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await rpc(running, POISON, seconds=15)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_the_time_of_decoding_counts_too(patched: Patches) -> None:
    permit = threading.Event()
    patched("service.frames.segmenter", "prepare", lambda *_: permit.wait(PATIENCE))
    try:
        async with serving(request_timeout_ms=100) as running:
            assert (await rest(running, NEIGHBOURS[0]))[0] == 504
            with pytest.raises(grpc.aio.AioRpcError) as late:
                await rpc(running, NEIGHBOURS[0])
            assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            permit.set()
    finally:
        permit.set()


async def test_nothing_is_taken_before_the_network_is_warm() -> None:
    warm = threading.Event()
    predictor = RedPredictor(warm_up=lambda max_batch_size: None if warm.wait(PATIENCE) else pytest.fail("cold"))
    async with serving(predictor, until_ready=False) as running:
        health = health_pb2_grpc.HealthStub(running.channel).Watch(health_pb2.HealthCheckRequest())
        assert (await health.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert (await running.rest.get("/livez")).status_code == 200
        for answer in (await running.rest.get("/readyz"), await running.rest.post("/segment", content=b"")):
            assert (answer.status_code, answer.json()["type"]) == (503, "urn:pranet:error:not-ready")
            assert int(answer.headers["retry-after"]) > 0
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await rpc(running, NEIGHBOURS[0])
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        warm.set()
        assert (await health.read()).status == health_pb2.HealthCheckResponse.SERVING
        assert (await running.rest.get("/readyz")).status_code == 200
        assert (await rest(running, NEIGHBOURS[0]))[0] == 200
        health.cancel()


async def test_a_device_that_hangs_again_and_again_is_said_to_be_dead(gate: Gate) -> None:
    async with serving(RedPredictor(gate.hold), hang_seconds=0.05) as running:
        for _ in range(4):
            assert (await rest(running, POISON))[0] == 500
        answer = await running.rest.get("/readyz")
        assert (answer.status_code, "will restart" in answer.json()["detail"]) == (503, True)


async def until_health_says(running: Running, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
    stub = health_pb2_grpc.HealthStub(running.channel)
    async with asyncio.timeout(PATIENCE):
        while (await stub.Check(health_pb2.HealthCheckRequest())).status != status:  # noqa: ASYNC110 - over the network
            await asyncio.sleep(0.05)


async def test_decoding_that_hangs_on_every_thread_is_said_until_one_returns(patched: Patches) -> None:
    permit, serves = threading.Event(), health_pb2.HealthCheckResponse
    patched("service.frames.segmenter", "prepare", lambda *_: permit.wait(PATIENCE))
    try:
        async with serving(request_timeout_ms=100) as running:
            await until_health_says(running, serves.SERVING)
            for _ in range(usable_cores()):
                assert (await running.rest.get("/readyz")).status_code == 200
                assert (await rest(running, NEIGHBOURS[0]))[0] == 504
            assert (await running.rest.get("/readyz")).status_code == 200  # no call is that old yet
            patched(segmenter, "STUCK_SECONDS", 0.0)
            for answer in (await running.rest.get("/readyz"), await running.rest.post("/segment", content=b"x")):
                assert (answer.status_code, answer.json()["type"]) == (503, "urn:pranet:error:not-ready")
                assert "all of single requests, are busy" in answer.json()["detail"]
            assert running.metric("pranet_ready") == 0
            assert running.metric("pranet_stuck_threads", {"priority": "single"}) == usable_cores()
            await until_health_says(running, serves.NOT_SERVING)
            permit.set()
            await until_health_says(running, serves.SERVING)
            assert (await running.rest.get("/readyz")).status_code == 200
    finally:
        permit.set()
