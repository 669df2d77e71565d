"""Nobody waits for ever: not archives behind requests, nor requests behind live video, nor whoever is first in line."""

import asyncio
import base64
import itertools
import threading
import time
from collections.abc import Callable, Sequence

import grpc
import pytest

from model.cores import usable_cores
from service.batching import archive_policy, queue
from service.batching.admission import Admission
from service.batching.batcher import Batcher
from service.batching.queue import Entry, Priority
from service.errors import QueueFull
from service.frames import segmenter
from service.frames.frame import Frame, Options
from service.pb.inference import open_inference_pb2 as oip
from service.pb.inference import open_inference_pb2_grpc as oip_grpc
from tests.support.batching.items import Device, submit
from tests.support.patching import Patches
from tests.support.pictures import encoded, red_box
from tests.support.serving import PATIENCE, Running, serving, until

PICTURE = encoded(red_box(64, 48, (8, 8, 40, 40)))
WAITING = -2  # the item that others pass; theirs are positive


async def behind(waiting: Priority, busy: Priority, size: int, until: Callable[[Device], bool]) -> Device:
    """Saturate a device with one priority, while an item of another one waits; return the device."""
    device, numbers = Device(), itertools.count(1)

    async def caller() -> None:
        while not until(device):
            await submit(batcher, next(numbers), priority=busy)

    def infer(items: Sequence[int]) -> list[int]:
        time.sleep(0.002)  # so that others wait meanwhile
        return device(items)

    async with Batcher(infer, max_batch_size=size) as batcher:
        callers = [asyncio.create_task(caller()) for _ in range(3 * size)]
        await asyncio.sleep(0)
        waits = submit(batcher, WAITING, priority=waiting)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*callers)
            await waits
    return device


def ran(device: Device) -> bool:
    return any(WAITING in batch for batch in device.batches)


async def test_an_archive_goes_on_now_and_then_behind_requests_without_a_pause(patched: Patches) -> None:
    patched(archive_policy, "STARVED_SECONDS", 0.1)
    device = await behind(Priority.ARCHIVE, Priority.SINGLE, 2, ran)
    assert [WAITING] in device.batches  # alone, so that it delays the others as little as it can


async def test_a_request_goes_on_now_and_then_behind_live_video_without_a_pause(patched: Patches) -> None:
    patched(queue, "SINGLE_SECONDS", 0.1)
    device = await behind(Priority.SINGLE, Priority.LIVE, 2, ran)
    (batch,) = [each for each in device.batches if WAITING in each]
    assert len(batch) == 2  # the last place of a batch of live frames


@pytest.mark.parametrize(
    ("priority", "seconds"),
    [(Priority.ARCHIVE, archive_policy.STARVED_SECONDS), (Priority.SINGLE, queue.SINGLE_SECONDS)],
    ids=["archive", "single"],
)
async def test_a_frame_whose_client_has_just_left_takes_no_turn_from_the_next(
    priority: Priority, seconds: float
) -> None:
    waiting, loop = queue.Queue[int, int](2, 0.0), asyncio.get_running_loop()

    def added(priority: Priority, age: float) -> Entry[int, int]:
        entry = Entry[int, int](priority=priority, arrived=loop.time() - age, answered=loop.create_future())
        waiting.add(entry)
        return entry

    left, waits = added(priority, seconds + 1.0), added(priority, seconds + 1.0)
    for _ in range(2):
        added(Priority.LIVE, 0.0)
    assert left.answered is not None
    left.answered.cancel()
    assert waits in await waiting.next_batch()


async def test_the_clock_of_archives_goes_on_where_none_of_them_fitted_in(patched: Patches) -> None:
    sizes, waiting = iter([1, 0, 1, 1]), queue.Queue[int, int](2, 0.0)  # when it is due, and then when it is formed
    patched(archive_policy.ArchivePolicy, "size", lambda *_: next(sizes))
    started = patched(archive_policy.ArchivePolicy, "started")
    waiting.add(Entry(priority=Priority.ARCHIVE, answered=asyncio.get_running_loop().create_future()))
    assert (len(await waiting.next_batch()), started.count) == (0, 0)
    assert (len(await waiting.next_batch()), started.count) == (1, 1)


@pytest.mark.parametrize(
    ("held", "free"),
    [(Priority.SINGLE, Priority.LIVE), (Priority.ARCHIVE, Priority.SINGLE), (Priority.LIVE, Priority.SINGLE)],
    ids=lambda priority: priority.name.lower(),
)
async def test_a_frame_is_decoded_however_many_of_another_priority_wait_for_it(held: Priority, free: Priority) -> None:
    permit = threading.Event()

    def slowly() -> bytes:
        assert permit.wait(PATIENCE)
        return PICTURE

    async with serving() as it, asyncio.timeout(PATIENCE):
        segment = it.service.segmenter.segment
        others = [
            asyncio.create_task(segment(Frame(source=slowly, options=Options(priority=held))))
            for _ in range(2 * usable_cores())
        ]
        await asyncio.sleep(0)
        try:
            await segment(Frame(source=PICTURE, options=Options(priority=free)))
            assert not any(other.done() for other in others)
        finally:
            permit.set()
        await asyncio.gather(*others)


async def infer_over_grpc(it: Running) -> oip.ModelInferResponse:
    """Ask by the Open Inference Protocol, with the priority of archives."""
    image = oip.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1])
    image.contents.bytes_contents.append(PICTURE)
    request = oip.ModelInferRequest(model_name="pranet", inputs=[image])
    request.parameters["priority"].int64_param = 3
    answer: oip.ModelInferResponse = await oip_grpc.GRPCInferenceServiceStub(it.channel).ModelInfer(request)
    return answer


@pytest.mark.parametrize(
    ("held", "status"),
    [(Priority.ARCHIVE, 200), (Priority.LIVE, 503), (Priority.SINGLE, 503)],
    ids=["archive", "live", "single"],
)
async def test_the_service_outlives_pictures_of_archives_on_which_every_thread_hangs_and_no_others(
    held: Priority, status: int, patched: Patches
) -> None:
    permit = threading.Event()
    threads = {Priority.ARCHIVE: max(1, usable_cores() // 2)}.get(held, usable_cores())

    def slowly() -> bytes:
        assert permit.wait(PATIENCE)
        return PICTURE

    patched(segmenter, "STUCK_SECONDS", 0.0)
    async with serving() as it:
        frames = [Frame(source=slowly, options=Options(priority=held)) for _ in range(threads)]
        hanging = [asyncio.create_task(it.service.segmenter.segment(frame)) for frame in frames]
        try:
            await until(lambda: it.metric("pranet_stuck_threads", {"priority": held.name.lower()}) == threads)
            assert (await it.rest.get("/readyz")).status_code == status
            assert (await it.rest.post("/segment", content=PICTURE)).status_code == status
            refused = await it.rest.post("/segment/batch", files=[("file", PICTURE)])
            assert (refused.status_code, refused.json()["type"]) == (503, "urn:pranet:error:not-ready")
            image = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(PICTURE).decode()]}
            low = {"inputs": [image], "parameters": {"priority": 3}}
            taken = it.metric("pranet_queue_depth")
            assert (await it.rest.post("/v2/models/pranet/infer", json=low)).status_code == 503
            with pytest.raises(grpc.aio.AioRpcError) as over_grpc:
                await infer_over_grpc(it)
            assert over_grpc.value.code() is grpc.StatusCode.UNAVAILABLE
            assert it.metric("pranet_queue_depth") == taken
        finally:
            permit.set()
        await asyncio.gather(*hanging)


async def test_a_place_that_is_free_again_belongs_to_the_first_in_line() -> None:
    admission, order = Admission(1), []
    first: Entry[int, int] = Entry()
    admission.take(first)

    async def waits(name: str) -> None:
        await admission.wait_for_place()
        admission.take(entries[name])
        order.append(name)

    entries: dict[str, Entry[int, int]] = {name: Entry() for name in "ab"}
    tasks = [asyncio.create_task(waits(name)) for name in "ab"]
    await asyncio.sleep(0)
    admission.release()
    try:
        admission.take(Entry())  # before the first in line has gone on
        order.append("who came later")
    except QueueFull:
        pass
    async with asyncio.timeout(PATIENCE):
        await tasks[0]
        admission.release()
        await tasks[1]
    assert order == ["a", "b"]


async def test_a_place_promised_to_one_who_leaves_goes_to_the_next_in_line() -> None:
    admission = Admission(1)
    admission.take(Entry[int, int]())
    tasks = [asyncio.create_task(admission.wait_for_place()) for _ in range(2)]
    await asyncio.sleep(0)
    admission.release()
    tasks[0].cancel()
    await asyncio.wait_for(tasks[1], PATIENCE)
    admission.take(Entry[int, int]())
