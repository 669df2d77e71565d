import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from unittest.mock import AsyncMock

import numpy as np
import pytest
from PIL import Image

from model.transforms import Floats, Pixels
from pranet_client.pictures import Picture, PixelFormat, RawPicture
from service.access.rate_limits import Limits, spending
from service.batching.admission import Admission
from service.batching.batcher import Batcher
from service.errors import (
    ClientLeft,
    DeadlineExceeded,
    Draining,
    InvalidRequest,
    ReadTooSlowly,
    ServiceError,
    TooManyStreams,
)
from service.frames import frame as frame_module
from service.frames.frame import Frame, Inference, MaskFormat, Options, Segmentation
from service.frames.regions import Box
from service.frames.segmenter import CpuPool, Segmenter, inference
from service.observability.metrics import OUTCOMES, Metrics
from service.observability.tracing import Tracing
from service.processes.memory import Places
from service.streams.frame import Drop, StreamFrame
from service.streams.registry import Streams
from service.streams.stream import MAX_UNREAD, Stream, StreamOptions
from service.streams.temporal import Status, TemporalFilter
from service.streams.window import Policy
from tests.support.patching import Patches, patching
from tests.support.predictors import GatedPredictor
from tests.support.serving import PATIENCE


def encoded(red: bool = True) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (32, 24), (255, 0, 0) if red else (0, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


PICTURE = encoded()
LATEST = StreamOptions()
EVERY = StreamOptions(Policy.EVERY)


class Sender:
    """A client: puts frames in, and takes answers out unless it is told not to."""

    def __init__(self) -> None:
        self._frames: asyncio.Queue[StreamFrame | ServiceError | None] = asyncio.Queue()
        self.answers: list[StreamFrame] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self._answered = asyncio.Condition()
        self.taken = 0  # frames that the stream has read

    def put(self, number: int, picture: Picture = PICTURE, capture_time_us: int | None = None) -> None:
        frame = StreamFrame(frame_id=number, source=picture, capture_time_us=capture_time_us)
        self._frames.put_nowait(frame)

    def end(self, error: ServiceError | None = None) -> None:
        self._frames.put_nowait(error)

    async def frames(self) -> AsyncIterator[StreamFrame]:
        while (frame := await self._frames.get()) is not None:
            if isinstance(frame, ServiceError):
                raise frame
            self.taken += 1
            yield frame

    async def send(self, answer: StreamFrame) -> None:
        await self.reading.wait()
        async with self._answered:
            self.answers.append(answer)
            self._answered.notify_all()

    async def answered(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE), self._answered:
            await self._answered.wait_for(lambda: len(self.answers) >= count)

    @property
    def outcomes(self) -> list[object]:
        return ["mask" if isinstance(each.outcome, Segmentation) else each.outcome for each in self.answers]


@dataclass
class Bench:
    """The data path with a predictor in the test's hand."""

    predictor: GatedPredictor
    admission: Admission
    batcher: Batcher[Pixels, Inference]
    segmenter: Segmenter
    streams: Streams
    metrics: Metrics
    running: list["asyncio.Task[None]"] = field(default_factory=list)

    def start(self, options: StreamOptions = LATEST) -> tuple[Sender, "asyncio.Task[None]"]:
        sender = Sender()

        async def run() -> None:
            with self.streams.open(options) as stream:
                await stream.run(sender.frames(), sender.send)

        task = asyncio.create_task(run())
        self.running.append(task)
        return sender, task

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def outcome(self, name: str, slot: str = "0") -> float:
        return self.count("pranet_frames_total", slot=slot, outcome=name)

    def check_identity(self, slot: str = "0") -> None:
        """received = answered + dropped + failed + abandoned; none is decoded for nothing."""
        total = sum(self.outcome(name, slot) for name in OUTCOMES)
        assert self.count("pranet_frames_received_total", slot=slot) == total
        lost = self.outcome("failed", slot) + self.outcome("abandoned", slot)
        assert self.count("pranet_decodes_total") <= self.predictor.frames + lost

    async def check_nothing_left(self) -> None:
        """No task, queue entry or place stays behind."""
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(self.batcher) == 0
        assert self.admission.taken == 0
        assert self.segmenter.in_flight == 0
        assert self.streams.active == 0
        own = {asyncio.current_task(), *self.batcher._tasks}
        assert {task for task in asyncio.all_tasks() if task not in own} == set()


@contextlib.asynccontextmanager
async def bench(*, places: int = 256, window: int = 4, max_streams: int = 4) -> AsyncIterator[Bench]:
    predictor, metrics, admission = GatedPredictor(), Metrics(), Admission(places)
    with contextlib.closing(CpuPool()) as pool:
        async with Batcher(inference(predictor), max_batch_size=8, hang_seconds=PATIENCE) as batcher:
            segmenter = Segmenter(batcher, admission, pool, metrics, Tracing(), max_image_pixels=10_000)
            limits = {"window": window, "frame_timeout": PATIENCE, "unread_timeout": PATIENCE}
            streams = Streams(segmenter, metrics, places=Places(max_streams), **limits)  # type: ignore[arg-type]
            made = Bench(predictor, admission, batcher, segmenter, streams, metrics)
            try:
                yield made
            finally:
                predictor.open()
                for task in made.running:
                    task.cancel()
                await asyncio.gather(*made.running, return_exceptions=True)


async def read(sender: Sender, count: int) -> None:
    """Wait until the stream has read so many frames and begun with them."""
    async with asyncio.timeout(PATIENCE):
        while sender.taken < count:  # noqa: ASYNC110 - turns of the loop, no clock
            await asyncio.sleep(0)
    for _ in range(10):
        await asyncio.sleep(0)


async def test_every_frame_of_a_stream_is_answered_in_order() -> None:
    async with bench() as it:
        it.predictor.open()
        sender, task = it.start(EVERY)
        for number in range(20):
            sender.put(number)
        sender.end()
        await task
        assert [answer.frame_id for answer in sender.answers] == list(range(20))
        assert sender.outcomes == ["mask"] * 20
        it.check_identity()
        await it.check_nothing_left()


async def test_under_latest_the_newest_frame_is_next_and_the_others_are_dropped_as_stale() -> None:
    async with bench() as it:
        sender, task = it.start()
        sender.put(0)
        await it.predictor.has_begun()
        for number in range(1, 6):
            sender.put(number)
        await read(sender, 6)
        it.predictor.open()
        sender.end()
        await task
        assert [answer.frame_id for answer in sender.answers] == list(range(6))
        assert sender.outcomes == ["mask", *[Drop.STALE] * 4, "mask"]
        assert it.count("pranet_decodes_total") == 2  # what is dropped is never decoded
        it.check_identity()


async def test_a_frame_that_waits_past_its_deadline_is_dropped_undecoded_by_a_timer() -> None:
    async with bench() as it:
        blocker, _ = it.start(StreamOptions(Policy.EVERY))
        sender, task = it.start(StreamOptions(Policy.EVERY, deadline_ms=300))
        for _ in range(4):
            blocker.put(0)
        await it.predictor.has_begun()
        for number in range(5):
            sender.put(number, capture_time_us=number)
        sender.end()
        await task
        outcomes = sender.outcomes
        assert outcomes[4] is Drop.DEADLINE  # the first four had their turn, and failed in the queue
        assert all(isinstance(outcome, DeadlineExceeded) for outcome in outcomes[:4])
        assert it.outcome("deadline", "1") == 1
        assert it.outcome("failed", "1") == 4
        assert it.count("pranet_decodes_total") == 8


async def test_a_frame_that_waits_for_its_tokens_rate_past_its_deadline_is_dropped_and_costs_nothing() -> None:
    async with bench() as it:
        it.predictor.open()
        options = StreamOptions(Policy.EVERY, deadline_ms=2000)
        with spending(Limits(rate=0.01, places=None).of("clinic")), it.streams.open(options) as stream:
            sender = Sender()
            for number in range(4):
                sender.put(number, capture_time_us=number)
            sender.end()
            await stream.run(sender.frames(), sender.send)
        assert sender.outcomes[1:] == [Drop.DEADLINE] * 3
        assert it.count("pranet_rejected_total", reason="deadline-exceeded") == 0
        it.check_identity()


async def test_a_frame_that_waits_for_room_past_its_deadline_is_dropped_undecoded() -> None:
    async with bench(places=1) as it:
        for _ in range(2):  # one on the device, and one in the only place
            blocker, _ = it.start(EVERY)
            blocker.put(0)
            await read(blocker, 1)
        await it.predictor.has_begun()
        async with asyncio.timeout(PATIENCE):
            while not it.admission.taken:  # noqa: ASYNC110
                await asyncio.sleep(0)
        sender, task = it.start(StreamOptions(Policy.EVERY, deadline_ms=30))
        sender.put(0, capture_time_us=0)
        sender.end()
        await task
        assert sender.outcomes == [Drop.DEADLINE]
        assert it.count("pranet_decodes_total") == 2
        it.predictor.open()


HOUR, STEP = 3_600_000_000, 10_000_000  # microseconds


@pytest.mark.parametrize(
    "ahead",
    [[0] * 6, [HOUR] * 6, [-HOUR] * 6, [0, 0, 0, STEP, STEP, STEP], [0, 0, 0, -STEP, -STEP, -STEP]],
    ids=["exact", "an hour ahead", "an hour behind", "steps ahead", "steps back"],
)
async def test_deadlines_and_ages_count_from_capture_by_whatever_clock(ahead: list[int], patched: Patches) -> None:
    now = 10_000.0  # seconds, of the service
    patched("service.streams.stream.time", "monotonic", lambda: now)
    async with bench() as it:
        it.predictor.open()
        sender, task = it.start(StreamOptions(deadline_ms=200))
        for number, delay in enumerate((0.02, 0.52, 0.02, 0.02, 0.32, 0.12)):  # of the network, seconds
            captured = 10_000 + number
            now = captured + delay
            sender.put(number, capture_time_us=captured * 1_000_000 + ahead[number])
            await sender.answered(number + 1)
        sender.end()
        await task
        assert sender.outcomes == ["mask", Drop.DEADLINE, "mask", "mask", Drop.DEADLINE, "mask"]
        assert [answer.age_seconds for answer in sender.answers] == pytest.approx([0, 0.5, 0, 0, 0.3, 0.1], abs=1e-6)
        assert it.count("pranet_decodes_total") == 4
        it.check_identity()


async def test_frames_that_a_stall_of_the_network_held_up_have_passed_their_deadline(patched: Patches) -> None:
    now = 10_000.0  # seconds, of the service
    patched("service.streams.stream.time", "monotonic", lambda: now)
    async with bench() as it:
        it.predictor.open()
        sender, task = it.start(StreamOptions(deadline_ms=1000))
        for number, (captured, received) in enumerate([(0, 0), (1, 7), (2, 7.1), (3, 7.2), (7.5, 7.5)]):
            now = 10_000 + received
            sender.put(number, capture_time_us=int(captured * 1_000_000))
            await sender.answered(number + 1)
        sender.end()
        await task
        assert sender.outcomes == ["mask", *[Drop.DEADLINE] * 3, "mask"]
        it.check_identity()


async def test_when_the_service_is_full_a_live_frame_is_dropped_as_overload() -> None:
    async with bench(places=1) as it:
        first, _ = it.start()
        first.put(0)
        await it.predictor.has_begun()  # on the device: its place is free again
        second, _ = it.start()
        second.put(0)
        await read(second, 1)
        async with asyncio.timeout(PATIENCE):
            while not it.admission.taken:  # noqa: ASYNC110
                await asyncio.sleep(0)
        third, task = it.start()
        third.put(7)
        third.end()
        await task
        assert third.outcomes == [Drop.OVERLOAD]
        assert it.outcome("overload", "2") == 1
        it.predictor.open()


async def test_when_the_service_is_full_a_stream_of_every_frame_waits() -> None:
    async with bench(places=1) as it:
        senders = [it.start(EVERY) for _ in range(4)]
        for sender, _ in senders:
            for number in range(5):
                sender.put(number)
            sender.end()
        it.predictor.open()
        await asyncio.gather(*(task for _, task in senders))
        for sender, _ in senders:
            assert sender.outcomes == ["mask"] * 5
        await it.check_nothing_left()


async def test_a_bad_frame_is_answered_with_its_error_and_the_stream_goes_on() -> None:
    async with bench() as it:
        it.predictor.open()
        sender, task = it.start(EVERY)
        sender.put(0)
        sender.put(1, PICTURE[:60])
        sender.put(2, RawPicture(PixelFormat.RGB24, 8, 8, 24, b"short"))
        sender.put(3)
        sender.end()
        await task
        kinds = [type(answer.outcome).__name__ for answer in sender.answers]
        assert kinds == ["Segmentation", "UndecodableImage", "InvalidParameter", "Segmentation"]
        assert it.outcome("failed") == 2
        it.check_identity()


async def test_a_fault_of_the_service_is_answered_and_the_stream_goes_on() -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("a bug")

    async with bench() as it:
        it.predictor.open()
        sender, task = it.start(EVERY)
        with patching() as patched:
            patched("service.frames.segmenter", "prepare", broken)
            sender.put(0)
            await sender.answered(1)
        sender.put(1)
        sender.end()
        await task
        assert [type(answer.outcome).__name__ for answer in sender.answers] == ["InternalError", "Segmentation"]


async def test_under_every_a_client_that_does_not_read_is_not_read_from() -> None:
    async with bench(window=3) as it:
        it.predictor.open()
        sender, task = it.start(EVERY)
        sender.reading.clear()
        for number in range(20):
            sender.put(number)
        await read(sender, 3)
        assert sender.taken == 3
        assert it.admission.taken <= 3
        sender.reading.set()
        sender.end()
        await task
        assert sender.outcomes == ["mask"] * 20


async def test_under_latest_a_client_that_does_not_read_holds_few_masks_and_is_stalled_in_the_end() -> None:
    async with bench(window=2) as it:
        it.predictor.open()
        sender, task = it.start()
        sender.reading.clear()
        for number in range(2 * MAX_UNREAD):
            sender.put(number)
        await read(sender, MAX_UNREAD)
        assert sender.taken == MAX_UNREAD
        assert it.predictor.frames <= 2
        sender.reading.set()
        sender.end()
        await task
        assert [answer.frame_id for answer in sender.answers] == list(range(2 * MAX_UNREAD))
        it.check_identity()


async def test_draining_answers_every_accepted_frame_and_then_says_so() -> None:
    async with bench() as it:
        sender, task = it.start(EVERY)
        for number in range(3):
            sender.put(number)
        await it.predictor.has_begun()
        await read(sender, 3)
        it.streams.drain()
        it.predictor.open()
        with pytest.raises(Draining):
            await task
        assert sender.outcomes == ["mask"] * 3
        it.check_identity()
        await it.check_nothing_left()


async def test_a_stream_that_its_client_has_ended_ends_well_while_the_service_drains() -> None:
    async with bench() as it:
        sender, task = it.start(EVERY)
        sender.put(0)
        sender.end()
        await it.predictor.has_begun()
        it.streams.drain()
        it.predictor.open()
        await task
        assert sender.outcomes == ["mask"]


async def test_an_idle_stream_ends_when_the_service_drains() -> None:
    async with bench() as it:
        _, task = it.start()
        await asyncio.sleep(0)
        it.streams.drain()
        with pytest.raises(Draining):
            await task
        await it.check_nothing_left()


async def test_what_the_sender_did_wrong_ends_the_stream_after_its_accepted_frames() -> None:
    async with bench() as it:
        it.predictor.open()
        sender, task = it.start(EVERY)
        sender.put(0)
        sender.end(InvalidRequest("a second configuration"))
        with pytest.raises(InvalidRequest):
            await task
        assert sender.outcomes == ["mask"]


async def test_a_client_that_left_ends_the_stream_at_once() -> None:
    async with bench() as it:
        it.predictor.open()
        sender = Sender()

        async def gone(answer: StreamFrame) -> None:
            raise ClientLeft("it left")

        with it.streams.open(EVERY) as stream:
            for number in range(4):
                sender.put(number)
            with pytest.raises(ClientLeft):
                await stream.run(sender.frames(), gone)
        assert it.outcome("abandoned") == it.count("pranet_frames_received_total", slot="0") > 0
        it.check_identity()
        await it.check_nothing_left()


State = Callable[[Bench, Sender], Awaitable[None]]


async def waiting_for_frames(it: Bench, sender: Sender) -> None:
    await asyncio.sleep(0)


async def waiting_encoded(it: Bench, sender: Sender) -> None:
    sender.put(0)
    sender.put(1)
    await it.predictor.has_begun()
    await read(sender, 2)


async def inferring(it: Bench, sender: Sender) -> None:
    sender.put(0)
    await it.predictor.has_begun()


async def queued(it: Bench, sender: Sender) -> None:
    other, _ = it.start()
    other.put(0)
    await it.predictor.has_begun()
    sender.put(0)
    async with asyncio.timeout(PATIENCE):
        while not len(it.batcher):  # noqa: ASYNC110
            await asyncio.sleep(0)


async def answering(it: Bench, sender: Sender) -> None:
    it.predictor.open()
    sender.reading.clear()
    sender.put(0)
    async with asyncio.timeout(PATIENCE):
        while it.segmenter.in_flight or not it.predictor.frames:  # noqa: ASYNC110
            await asyncio.sleep(0)


@pytest.mark.parametrize("reach", [waiting_for_frames, waiting_encoded, queued, inferring, answering])
async def test_cancelling_a_stream_leaves_nothing_behind(
    reach: State,
) -> None:
    async with bench() as it:
        sender, task = it.start()
        await reach(it, sender)
        for running in it.running:
            running.cancel()
        await asyncio.gather(*it.running, return_exceptions=True)
        assert task.cancelled()
        it.predictor.open()
        await it.check_nothing_left()
        it.check_identity()
        assert it.outcome("failed") == 0  # nothing of the service did
        assert it.count("pranet_frame_duration_seconds_count", outcome="failed") == 0


async def test_frames_of_a_stream_that_the_service_itself_breaks_are_failed_not_abandoned() -> None:
    async with bench() as it:
        it.predictor.open()
        sender = Sender()

        async def broken(answer: StreamFrame) -> None:
            raise KeyError("a fault")

        with it.streams.open(EVERY) as stream:
            sender.put(0)
            with pytest.raises(KeyError, match="a fault"):
                await stream.run(sender.frames(), broken)
        assert (it.outcome("failed"), it.outcome("abandoned")) == (1, 0)
        it.check_identity()


@contextlib.contextmanager
def decoding_that_waits(patched: Patches) -> Iterator[tuple[threading.Event, threading.Event]]:
    begun, permit = threading.Event(), threading.Event()
    prepare = frame_module.prepare

    def gated(*args: object) -> object:
        begun.set()
        permit.wait(PATIENCE)
        return prepare(*args)  # type: ignore[arg-type]

    patched("service.frames.segmenter", "prepare", gated)
    yield begun, permit
    permit.set()


async def test_cancelling_a_stream_that_decodes_leaves_nothing_behind(patched: Patches) -> None:
    async with bench() as it:
        with decoding_that_waits(patched) as (begun, _):
            sender, task = it.start()
            sender.put(0)
            assert await asyncio.to_thread(begun.wait, PATIENCE)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await it.check_nothing_left()
        it.check_identity()


async def test_a_frame_whose_decoding_takes_too_long_fails_in_time(patched: Patches) -> None:
    async with bench() as it:
        it.predictor.open()
        sender, task = it.start(StreamOptions(Policy.EVERY, deadline_ms=100))
        with decoding_that_waits(patched):
            sender.put(0)
            await sender.answered(1)
            assert isinstance(sender.outcomes[0], DeadlineExceeded)
        sender.end()
        await task
        it.check_identity()


@pytest.mark.parametrize("seconds", [0.05, None])
async def test_an_answer_may_stay_unread_for_as_long_as_the_stream_allows(seconds: float | None) -> None:
    async with bench() as it:
        it.predictor.open()
        it.streams.unread_timeout = seconds
        sender, task = it.start(EVERY)
        sender.reading.clear()
        sender.put(0)
        sender.end()
        done, _ = await asyncio.wait([task], timeout=0.3 if seconds is None else PATIENCE)
        assert bool(done) is (seconds is not None)
        sender.reading.set()
        if seconds is None:
            await task
        else:
            with pytest.raises(ReadTooSlowly, match=r"not read within 0.05 s"):
                await task


async def test_a_timeout_inside_the_sender_is_not_the_readers_fault() -> None:
    async with bench() as it:
        it.predictor.open()
        with it.streams.open(EVERY) as stream:
            sender = Sender()
            sender.put(0)
            sender.end()
            with pytest.raises(TimeoutError, match="the disk"):
                await stream.run(sender.frames(), AsyncMock(side_effect=TimeoutError("the disk")))


@pytest.mark.parametrize(("policy", "counted"), [(Policy.LATEST, 1), (Policy.EVERY, 0)])
async def test_ages_are_those_of_live_video(policy: Policy, counted: int) -> None:
    async with bench() as it:
        it.predictor.open()
        sender, task = it.start(StreamOptions(policy))
        sender.put(0)
        sender.end()
        await task
        assert it.count("pranet_stream_frame_age_seconds_count", slot="0") == counted


async def test_a_filter_that_outlasts_its_frame_is_done_before_the_next_one_begins(patched: Patches) -> None:
    goes_on, at_work, most = threading.Event(), 0, 0

    class Slow(TemporalFilter):
        def update(self, pixels: Pixels, box: Box, logits: Floats, captured: float) -> tuple[Floats, Status]:
            nonlocal at_work, most
            at_work += 1
            most = max(most, at_work)
            goes_on.wait(0.3)
            at_work -= 1
            return super().update(pixels, box, logits, captured)

    patched("service.streams.stream", "TemporalFilter", Slow)
    async with bench() as it:
        it.predictor.open()
        sender, task = it.start(StreamOptions(Policy.EVERY, deadline_ms=150))
        sender.put(0, capture_time_us=0)
        await asyncio.sleep(0.1)
        sender.put(1, capture_time_us=100_000)  # is still in time when the first is no more
        sender.end()
        await task
        assert isinstance(sender.outcomes[0], DeadlineExceeded)
        assert most == 1
        goes_on.set()


async def test_streams_beyond_the_limit_are_refused_and_slots_are_used_again() -> None:
    async with bench(max_streams=1) as it:
        sender, task = it.start()
        await asyncio.sleep(0)
        with pytest.raises(TooManyStreams), it.streams.open(LATEST):
            pass
        assert it.count("pranet_streams_active") == 1
        sender.end()
        await task
        with it.streams.open(LATEST) as again:
            assert isinstance(again, Stream)
        assert it.count("pranet_streams_active") == 0


@pytest.mark.parametrize("policy", Policy)
async def test_raw_and_encoded_frames_give_the_same_mask_in_every_format(policy: Policy) -> None:
    rows = b"".join(b"\xff\x00\x00" * 30 + bytes(10) for _ in range(20))  # red, stride 100
    raw = RawPicture(PixelFormat.RGB24, 30, 20, 100, rows)
    async with bench() as it:
        it.predictor.open()
        for form in MaskFormat:
            sender, task = it.start(StreamOptions(policy, frame=Options(mask_format=form)))
            sender.put(0, raw)
            sender.end()
            await task
            done = sender.answers[0].outcome
            assert isinstance(done, Segmentation)
            assert (done.width, done.height) == (30, 20)
            if form is MaskFormat.PNG:
                assert np.asarray(Image.open(BytesIO(done.png))).min() == 255
            elif form is MaskFormat.RLE:
                assert done.run_lengths == (0, 600)
            else:
                assert done.bits == b"\xff\xff\xff\xfc" * 20  # 30 pixels in 4 bytes a row


@pytest.mark.parametrize("between", [[], [PICTURE[:60]]], ids=["all are good", "one between cannot be decoded"])
async def test_frames_that_are_decoded_out_of_order_are_remembered_in_order(
    between: list[bytes], patched: Patches
) -> None:
    last_is_inferred = threading.Event()
    prepare, seen = frame_module.prepare, []

    def uneven(frame: Frame, *rest: object) -> None:
        if frame.source is PICTURE:  # the first frame
            assert last_is_inferred.wait(PATIENCE)
        prepare(frame, *rest)  # type: ignore[arg-type]

    class Recorded(TemporalFilter):
        def update(self, pixels: Pixels, box: Box, logits: Floats, captured: float) -> tuple[Floats, Status]:
            seen.append(captured)
            return super().update(pixels, box, logits, captured)

    patched("service.frames.segmenter", "prepare", uneven)
    patched("service.streams.stream", "TemporalFilter", Recorded)
    async with bench() as it:
        it.predictor.open()
        sender, task = it.start(EVERY)
        for number, picture in enumerate([PICTURE, *between, encoded(red=False)]):
            sender.put(number, picture, capture_time_us=number * 40_000)
        sender.end()
        await it.predictor.has_begun()  # the last: the first is not decoded yet
        while not it.predictor.frames:  # noqa: ASYNC110
            await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
        last_is_inferred.set()
        await task
        assert [sender.outcomes[0], sender.outcomes[-1]] == ["mask", "mask"]
        assert seen == sorted(seen)
        assert len(seen) == 2
