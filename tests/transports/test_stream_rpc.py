import asyncio

import grpc
import pytest

from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from tests.support.pictures import encoded, mask_of, red_box
from tests.support.serving import serving
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
        assert 80 < answers[2].added_delay_ms < 100
