import asyncio
from typing import Any

import grpc
import pytest
from PIL import Image

from model.transforms import Pixels
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from service.streams.reuse import MOST_SECONDS
from tests.support.pictures import encoded, mask_of, red_box
from tests.support.predictors import RedPredictor
from tests.support.serving import PATIENCE, Running, serving, until
from tests.support.streaming import CONFIG, EVERY, PICTURE, check_identity, frame, held, reached, replies, status


async def test_a_stream_answers_every_frame_in_order_with_its_mask() -> None:
    async with serving() as it:
        call = it.stub.SegmentStream(
            iter([EVERY, *(frame(number, capture_time_us=number, image=PICTURE) for number in range(10))])
        )
        answers = await replies(call)
        assert [answer.frame_id for answer in answers] == list(range(10))
        for answer in answers:
            assert mask_of(answer.mask.png).sum() == 32 * 24
            assert answer.mask.timings_ms.infer > 0
            assert answer.age_ms >= answer.window_ms >= 0
        check_identity(it)


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
    async with held() as hold:
        call = hold.stub.SegmentStream()
        await call.write(CONFIG)
        await call.write(frame(0))
        await hold.predictor.has_begun()
        for number in range(1, 4):
            await call.write(frame(number))
        await call.done_writing()
        await reached(call, lambda: hold.received == 4)
        hold.open()
        answers = await replies(call)
        assert [answer.dropped.reason for answer in answers] == [0, pb.DROP_REASON_STALE, pb.DROP_REASON_STALE, 0]
        assert hold.it.metric("pranet_decodes_total") == 2
        check_identity(hold.it)


@pytest.mark.parametrize(
    ("messages", "cause"),
    [
        ([], "invalid-request"),
        ([frame(0)], "invalid-request"),
        ([CONFIG, CONFIG], "invalid-request"),
        ([pb.StreamRequest(config=pb.StreamConfig(threshold=2))], "invalid-parameter"),
        ([pb.StreamRequest(config=pb.StreamConfig(policy=99))], "invalid-parameter"),  # type: ignore[arg-type]
        ([pb.StreamRequest(config=pb.StreamConfig(deadline_ms=-1))], "invalid-parameter"),
        ([pb.StreamRequest(config=pb.StreamConfig(roi="left"))], "invalid-parameter"),
    ],
)
async def test_a_malformed_stream_is_refused_with_its_cause(messages: list[pb.StreamRequest], cause: str) -> None:
    async with serving() as it:
        assert await status(it.stub.SegmentStream(iter(messages))) == (grpc.StatusCode.INVALID_ARGUMENT, cause)
        assert not it.service.streams.active


async def test_bytes_that_are_no_message_end_a_stream_after_the_answers_to_its_frames() -> None:
    async with held() as it:
        call = it.it.channel.stream_stream("/pranet.v1.SegmentationService/SegmentStream")()
        for data in (EVERY.SerializeToString(), frame(7).SerializeToString(), b"\xff\xff\xff"):
            await call.write(data)
        await it.predictor.has_begun()
        it.open()
        assert pb.StreamResponse.FromString(await call.read()).frame_id == 7
        assert await status(call) == (grpc.StatusCode.INVALID_ARGUMENT, "invalid-request")
        await it.nothing_left()


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


async def test_under_every_a_sender_is_slowed_on_the_wire_to_the_pace_of_the_service() -> None:
    big = encoded(red_box(1200, 1200, (0, 0, 600, 1200)), "BMP")  # 4 MB: more than the wire itself takes up
    frames, window = 12, 2
    async with held(stream_window=window) as hold:
        call = hold.stub.SegmentStream()
        await call.write(EVERY)
        written = 0

        async def write() -> None:
            nonlocal written
            for number in range(frames):
                await call.write(frame(number, image=big))
                written += 1
            await call.done_writing()

        writing = asyncio.create_task(write())
        seen = -1
        while written > seen or hold.received < window:  # until nothing moves any more
            seen = written
            await asyncio.sleep(0.2)
        assert hold.received == window
        assert written < frames
        hold.open()
        answers = await replies(call)
        await writing
        assert [answer.frame_id for answer in answers] == list(range(frames))
        assert {answer.WhichOneof("outcome") for answer in answers} == {"mask"}


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
        assert 40 < answers[2].added_delay_ms < 42


SECOND = 1_000_000  # in microseconds


def grey(level: int) -> bytes:
    return encoded(Image.new("RGB", (64, 48), (level, level, level)))


async def reused(it: Running, pictures: list[bytes], apart: int = 1000, **config: Any) -> list[bool]:
    """Stream pictures that were captured some microseconds apart; tell which of them were not inferred."""
    configured = pb.StreamRequest(config=pb.StreamConfig(policy=pb.POLICY_EVERY, **{"reuse": True, **config}))
    sent = [frame(number, image=each, capture_time_us=number * apart) for number, each in enumerate(pictures)]
    answers = await replies(it.stub.SegmentStream(iter([configured, *sent])))
    assert [answer.WhichOneof("outcome") for answer in answers] == ["mask"] * len(pictures)
    for answer in answers:
        assert (answer.mask.timings_ms.infer == 0) is answer.reused
    return [answer.reused for answer in answers]


async def test_a_frame_that_shows_what_an_earlier_one_showed_gets_its_mask_without_inference() -> None:
    other = encoded(red_box(64, 48, (0, 0, 20, 20)))
    predictor = RedPredictor()
    async with serving(predictor, stream_window=1) as it:
        inferred = sum(predictor.batch_sizes)
        pictures = [PICTURE, PICTURE, other, other, PICTURE, PICTURE]
        assert await reused(it, pictures) == [False, True, False, True, False, True]
        assert sum(predictor.batch_sizes) - inferred == 3
        assert it.metric("pranet_frames_reused_total", {"slot": "0"}) == 3
        assert await reused(it, pictures, reuse=False) == 6 * [False]
        check_identity(it)


async def test_frames_in_progress_at_once_that_show_the_same_are_inferred_once() -> None:
    predictor = RedPredictor()
    async with serving(predictor, stream_window=8) as it:
        inferred = sum(predictor.batch_sizes)
        assert sum(await reused(it, 8 * [PICTURE])) == 7
        assert sum(predictor.batch_sizes) - inferred == 1


async def test_a_mask_that_is_reused_is_that_of_its_own_frame_and_options() -> None:
    """The frames have the same input of the network, but other sizes."""
    config = pb.StreamRequest(config=pb.StreamConfig(policy=pb.POLICY_EVERY, reuse=True, smoothing_ms=50))
    sizes = [(704, 704), (1056, 352), (352, 352)]
    sent = [frame(n, image=encoded(Image.new("RGB", size, "red")), capture_time_us=n) for n, size in enumerate(sizes)]
    async with serving(stream_window=1) as it:
        answers = await replies(it.stub.SegmentStream(iter([config, *sent])))
        assert [answer.reused for answer in answers] == [False, True, True]
        assert [mask_of(answer.mask.png).shape[::-1] for answer in answers] == sizes
        assert all(mask_of(answer.mask.png).all() for answer in answers)


async def test_after_a_second_the_same_picture_is_inferred_again() -> None:
    async with serving(stream_window=1) as it:
        assert await reused(it, 4 * [PICTURE], apart=SECOND * 6 // 10) == [False, True, False, True]
        assert await reused(it, 3 * [PICTURE], apart=-2 * SECOND) == [False, False, False]


async def test_a_clock_that_stands_still_keeps_no_old_mask() -> None:
    """As of a client that sends the same presentation time while a film is paused."""
    config = pb.StreamRequest(config=pb.StreamConfig(policy=pb.POLICY_EVERY, reuse=True))
    async with serving() as it:
        call = it.stub.SegmentStream(timeout=PATIENCE)
        await call.write(config)
        reused = []
        for pause in (0.0, 0.0, MOST_SECONDS + 0.1):
            await asyncio.sleep(pause)
            await call.write(frame(0, image=PICTURE, presentation_time_us=7))
            reused.append((await call.read()).reused)
        await call.done_writing()
        assert reused == [False, True, False]


async def test_small_changes_do_not_add_up() -> None:
    async with serving(stream_window=1) as it:
        assert await reused(it, [grey(level) for level in (100, 102, 103, 105, 106)]) == [
            False,
            True,
            False,
            True,
            False,
        ]


async def test_a_frame_is_inferred_if_inference_failed_on_the_one_that_showed_the_same() -> None:
    failing = True

    def fail_once(frames: Pixels) -> None:
        nonlocal failing
        if failing:
            failing = False
            raise RuntimeError("a fault of the device")

    predictor = RedPredictor()
    config = pb.StreamRequest(config=pb.StreamConfig(policy=pb.POLICY_EVERY, reuse=True))
    async with serving(predictor, max_batch_size=1) as it:
        predictor._before = fail_once
        answers = await replies(it.stub.SegmentStream(iter([config, *(frame(number) for number in range(4))])))
        outcomes = [answer.WhichOneof("outcome") for answer in answers]
        assert sorted(outcomes) == ["error", "mask", "mask", "mask"]
        assert sum(answer.reused for answer in answers) == 2
        check_identity(it)


async def test_a_client_that_leaves_while_frames_wait_for_the_logits_of_another_leaves_nothing_behind() -> None:
    config = pb.StreamRequest(config=pb.StreamConfig(policy=pb.POLICY_EVERY, reuse=True))
    async with held() as hold:
        call = hold.stub.SegmentStream()
        for message in (config, *(frame(number) for number in range(4))):
            await call.write(message)
        await hold.predictor.has_begun()
        await until(lambda: hold.it.metric("pranet_decodes_total") == 4)
        await until(lambda: hold.it.metric("pranet_queue_depth") == 3)
        assert len(hold.it.service.segmenter._batcher) == 0  # they wait for the logits, not for the device
        call.cancel()
        await hold.nothing_left()
        assert hold.predictor.frames == 0
