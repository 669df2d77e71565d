import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from fakes import PATIENCE, Running, serving
from gates import GatedPredictor
from pictures import encoded, mask_of, red_box
from service import frame as frame_module
from service import rpc
from service.core import Phase
from service.metrics import OUTCOMES
from service.pb.pranet.v1 import segmentation_pb2 as pb
from service.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc

PICTURE = encoded(red_box(64, 48, (16, 12, 48, 36)))
CONFIG = pb.StreamRequest(config=pb.StreamConfig())
EVERY = pb.StreamRequest(config=pb.StreamConfig(policy=pb.POLICY_EVERY))

Call = Any  # grpc.aio.StreamStreamCall, whose type parameters the stubs do not agree on


def frame(number: int, **fields: Any) -> pb.StreamRequest:
    return pb.StreamRequest(frame=pb.StreamFrame(frame_id=number, **(fields or {"image": PICTURE})))


async def replies(call: Call) -> list[pb.StreamResponse]:
    async with asyncio.timeout(PATIENCE):
        return [response async for response in call]


async def status(call: Call) -> tuple[grpc.StatusCode, str]:
    """Return the code of a call that ends, and the cause that the service names."""
    async with asyncio.timeout(PATIENCE):
        code = await call.code()
        return code, dict(await call.trailing_metadata()).get(rpc.ERROR_METADATA_KEY, "")


@contextlib.asynccontextmanager
async def gated() -> AsyncIterator[tuple[Running, GatedPredictor]]:
    """Serve with a predictor that is warm, and then waits for the test."""
    predictor = GatedPredictor()
    async with serving(predictor) as it:
        try:
            yield it, predictor
        finally:
            predictor.open()


async def all_gone(it: Running) -> None:
    """Wait until no stream is open and nothing is in flight."""
    async with asyncio.timeout(PATIENCE):
        await it.service.streams.idle.wait()
        await it.service.segmenter.idle.wait()
    assert it.metric("pranet_queue_depth") == 0
    assert not [task for task in asyncio.all_tasks() if "Stream." in str(task.get_coro())]


def check_identity(it: Running, slot: str = "0") -> None:
    total = sum(it.metric("pranet_frames_total", {"slot": slot, "outcome": name}) for name in OUTCOMES)
    assert it.metric("pranet_frames_received_total", {"slot": slot}) == total > 0


async def test_a_stream_answers_every_frame_in_order_with_its_mask() -> None:
    async with serving() as it:
        call = it.stub.SegmentStream(
            iter([EVERY, *(frame(number, capture_time_us=number, image=PICTURE) for number in range(10))])
        )
        answers = await replies(call)
        assert [answer.frame_id for answer in answers] == list(range(10))
        for answer in answers:
            assert mask_of(answer.mask.png).sum() == 32 * 24
            assert answer.mask.times.infer > 0
            assert answer.age_ms >= answer.window_ms >= 0
        check_identity(it)
        await all_gone(it)


async def test_formats_and_bad_frames_are_answered_each_in_its_own_way() -> None:
    raw = pb.RawImage(format=pb.PIXEL_FORMAT_RGB24, width=8, height=4, data=b"\xff\x00\x00" * 32)
    config = pb.StreamConfig(policy=pb.POLICY_EVERY, mask_format=pb.MASK_FORMAT_BITS)
    async with serving() as it:
        sent = [
            pb.StreamRequest(config=config),
            frame(1, raw=raw),
            frame(2, raw=pb.RawImage(width=8, height=4, data=b"?")),
            frame(3, image=b""),
            frame(4),
        ]
        first, second, third, fourth = await replies(it.stub.SegmentStream(iter(sent)))
        assert first.mask.bits == b"\xff" * 4
        assert second.error.cause == "invalid-parameter"
        assert third.error.cause == "invalid-request"
        assert fourth.WhichOneof("outcome") == "mask"


async def test_a_stale_frame_is_answered_as_dropped() -> None:
    async with gated() as (it, predictor):
        call = it.stub.SegmentStream()
        await call.write(CONFIG)
        await call.write(frame(0))
        await predictor.has_begun()
        for number in range(1, 4):
            await call.write(frame(number))
        await call.done_writing()
        async with asyncio.timeout(PATIENCE):
            while it.metric("pranet_frames_received_total", {"slot": "0"}) < 4:  # noqa: ASYNC110
                await asyncio.sleep(0)
        predictor.open()
        answers = await replies(call)
        assert [answer.dropped.reason for answer in answers] == [0, pb.DROP_REASON_STALE, pb.DROP_REASON_STALE, 0]
        assert it.metric("pranet_decodes_total") == 2
        check_identity(it)


@pytest.mark.parametrize(
    ("messages", "cause"),
    [
        ([], "invalid-request"),
        ([frame(0)], "invalid-request"),
        ([CONFIG, CONFIG], "invalid-request"),
        ([pb.StreamRequest(config=pb.StreamConfig(threshold=2))], "invalid-parameter"),
        ([pb.StreamRequest(config=pb.StreamConfig(policy=99))], "invalid-parameter"),  # type: ignore[arg-type]
        ([pb.StreamRequest(config=pb.StreamConfig(deadline_ms=-1))], "invalid-parameter"),
    ],
)
async def test_a_malformed_stream_is_refused_with_its_cause(messages: list[pb.StreamRequest], cause: str) -> None:
    async with serving() as it:
        assert await status(it.stub.SegmentStream(iter(messages))) == (grpc.StatusCode.INVALID_ARGUMENT, cause)
        await all_gone(it)


async def test_a_stream_beyond_the_limit_is_refused() -> None:
    async with serving(max_streams=1) as it:
        first = it.stub.SegmentStream()
        await first.write(EVERY)
        await first.write(frame(0))
        await first.read()
        second = it.stub.SegmentStream(iter([EVERY]))
        assert await status(second) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "too-many-streams")
        await first.done_writing()
        assert await status(first) == (grpc.StatusCode.OK, "")


async def test_under_every_a_sender_that_does_not_read_is_slowed_on_the_wire() -> None:
    big = encoded(red_box(600, 600, (0, 0, 300, 600)), "BMP")  # 1 MB: more than the wire itself takes up
    async with serving(stream_window=2) as it:
        call = it.stub.SegmentStream()
        await call.write(EVERY)
        written = 0

        async def write() -> None:
            nonlocal written
            for number in range(40):
                await call.write(frame(number, image=big))
                written += 1
            await call.done_writing()

        writing = asyncio.create_task(write())
        answers = await replies(call)
        await writing
        assert [answer.frame_id for answer in answers] == list(range(40))
        assert {answer.WhichOneof("outcome") for answer in answers} == {"mask"}


async def before_configuration(it: Running, predictor: GatedPredictor, call: Call) -> None:
    await asyncio.sleep(0)


async def waiting_for_frames(it: Running, predictor: GatedPredictor, call: Call) -> None:
    await call.write(CONFIG)
    async with asyncio.timeout(PATIENCE):
        while not it.service.streams.active:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def waiting_encoded(it: Running, predictor: GatedPredictor, call: Call) -> None:
    await inferring(it, predictor, call)
    await call.write(frame(1))
    async with asyncio.timeout(PATIENCE):
        while it.metric("pranet_frames_received_total", {"slot": "0"}) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def inferring(it: Running, predictor: GatedPredictor, call: Call) -> None:
    await call.write(CONFIG)
    await call.write(frame(0))
    await predictor.has_begun()


async def answering(it: Running, predictor: GatedPredictor, call: Call) -> None:
    predictor.open()
    await call.write(CONFIG)
    await call.write(frame(0))
    async with asyncio.timeout(PATIENCE):
        while not it.metric("pranet_frames_total", {"slot": "0", "outcome": "answered"}):  # noqa: ASYNC110
            await asyncio.sleep(0)


STATES = [before_configuration, waiting_for_frames, waiting_encoded, inferring, answering]
Reach = Callable[[Running, GatedPredictor, Call], Awaitable[None]]


@pytest.mark.parametrize("reach", STATES)
async def test_a_cancelled_call_leaves_nothing_behind(reach: Reach) -> None:
    async with gated() as (it, predictor):
        call = it.stub.SegmentStream()
        await reach(it, predictor, call)
        call.cancel()
        assert (await status(call))[0] is grpc.StatusCode.CANCELLED
        await all_gone(it)
        predictor.open()


@pytest.mark.parametrize("reach", STATES)
async def test_a_calls_own_deadline_ends_it_and_leaves_nothing_behind(reach: Reach) -> None:
    async with gated() as (it, predictor):
        call = it.stub.SegmentStream(timeout=0.5)
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
            await reach(it, predictor, call)
        async with asyncio.timeout(PATIENCE):
            assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await all_gone(it)
        predictor.open()


@pytest.mark.parametrize("reach", STATES)
async def test_when_the_service_stops_accepted_frames_are_answered_and_the_stream_ends_as_unavailable(
    reach: Reach,
) -> None:
    async with gated() as (it, predictor):
        call = it.stub.SegmentStream()
        await reach(it, predictor, call)
        it.service.readiness.enter(Phase.DRAINING)
        it.service.streams.drain()
        predictor.open()
        answers = 0
        with contextlib.suppress(grpc.aio.AioRpcError):
            async with asyncio.timeout(PATIENCE):
                async for _ in call:
                    answers += 1
        assert await status(call) == (grpc.StatusCode.UNAVAILABLE, "draining")
        assert answers == it.metric("pranet_frames_received_total", {"slot": "0"})
        await all_gone(it)


async def test_cancelling_a_call_whose_frame_is_decoded_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, permit = threading.Event(), threading.Event()
    prepare = frame_module.prepare

    def gated_prepare(*args: Any) -> Any:
        begun.set()
        permit.wait(PATIENCE)
        return prepare(*args)

    monkeypatch.setattr("service.segmenter.prepare", gated_prepare)
    async with serving() as it:
        call = it.stub.SegmentStream()
        await call.write(CONFIG)
        await call.write(frame(0))
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        call.cancel()
        await all_gone(it)
        permit.set()


async def test_a_stream_whose_peer_vanished_is_cleaned_up_by_keepalive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "KEEPALIVE_SECONDS", 1.0)
    monkeypatch.setattr(rpc, "KEEPALIVE_TIMEOUT_SECONDS", 0.5)
    async with (
        serving() as it,
        black_hole(it.grpc_port) as (port, swallow),
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        call: Call = pb_grpc.SegmentationServiceStub(channel).SegmentStream()
        await call.write(CONFIG)
        await call.write(frame(0))
        await call.read()
        assert it.service.streams.active == 1
        swallow.set()  # both sockets stay open, and nothing gets through any more
        await all_gone(it)
        check_identity(it)


@contextlib.asynccontextmanager
async def black_hole(target: int) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """Forward TCP to a local port, until the event is set: from then on bytes are read and thrown away."""
    swallow = asyncio.Event()
    accepted: list[asyncio.Task[None]] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if not swallow.is_set():
                writer.write(data)
                await writer.drain()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
        try:
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer), return_exceptions=True)
        finally:
            far_writer.close()
            writer.close()

    async with asyncio.TaskGroup() as tasks:

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted.append(tasks.create_task(connected(reader, writer)))

        server = await asyncio.start_server(accept, "127.0.0.1")
        try:
            yield server.sockets[0].getsockname()[1], swallow
        finally:
            server.close()
            for task in accepted:
                task.cancel()


async def test_quality_and_the_delay_of_smoothing_come_with_the_answers() -> None:
    config = pb.StreamConfig(policy=pb.POLICY_EVERY, smoothing_ms=100, hysteresis=True)
    black = encoded(red_box(64, 48, (0, 0, 0, 0)))
    async with serving() as it:
        sent = [
            pb.StreamRequest(config=config),
            *(frame(number, image=black, capture_time_us=number * 33_333) for number in range(3)),
        ]
        answers = await replies(it.stub.SegmentStream(iter(sent)))
        assert all(list(answer.quality) == [pb.QUALITY_BLACK] for answer in answers)
        assert answers[0].added_delay_ms == 0
        assert 80 < answers[2].added_delay_ms < 100
