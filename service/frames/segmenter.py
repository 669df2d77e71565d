"""The data path of one frame, from decoding to the encoded answer; ``Segmenter._process`` shows all stages in order."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import numpy as np

from model.cores import usable_cores
from model.engines.predictor import Predictor
from model.transforms import SIZE, Pixels
from pranet_client.pictures import Picture
from service.batching.admission import Admission
from service.batching.batcher import Batcher, Infer
from service.batching.queue import Priority
from service.errors import DeadlineExceeded, InvalidParameter, NotReady
from service.frames.frame import Frame, Inference, Output, Segmentation, prepare, render
from service.frames.side_outputs import SideOutputs
from service.observability.metrics import Metrics
from service.observability.tracing import Tracing

T = TypeVar("T")

STUCK_SECONDS = 30.0  # the largest picture that MAX_IMAGE_PIXELS allows takes a few seconds on a slow core


class CpuPool:
    """Threads for decoding and rendering. Each priority has its own, and the kernel shares the cores among all of them.

    So a live frame is decoded at once, however many large pictures of others wait. A thread cannot be stopped, so a
    stuck one stays stuck.
    """

    def __init__(self, threads: int | None = None) -> None:
        threads = threads or usable_cores()
        self._sizes = {Priority.LIVE: threads, Priority.SINGLE: threads, Priority.ARCHIVE: max(1, threads // 2)}
        self._executors = {priority: ThreadPoolExecutor(size, "cpu") for priority, size in self._sizes.items()}
        self._begun: dict[Priority, dict[int, float]] = {priority: {} for priority in Priority}  # by thread; seconds

    def close(self) -> None:
        """Cancel the calls that wait, and wait for none that runs: a stuck one would hold the end up."""
        for executor in self._executors.values():
            executor.shutdown(wait=False, cancel_futures=True)

    async def run(self, priority: Priority, function: Callable[..., T], *args: object) -> T:
        """Run a function in a thread of the priority."""
        executor, begun = self._executors[priority], self._begun[priority]
        return await asyncio.get_running_loop().run_in_executor(executor, _timed, begun, function, *args)

    def stuck(self, priority: Priority) -> int:
        """Return how many threads of the priority have worked on one call for ``STUCK_SECONDS``."""
        limit = time.monotonic() - STUCK_SECONDS
        return sum(each < limit for each in [*self._begun[priority].values()])

    def is_stuck(self, priority: Priority) -> bool:
        """Tell whether all threads of the priority are stuck."""
        return self.stuck(priority) >= self._sizes[priority]

    def check_archives(self) -> None:
        """Raise an error unless archives have a thread that is not stuck.

        Raises:
            NotReady: pictures of other archives hold all threads.

        """
        if self.is_stuck(Priority.ARCHIVE):
            raise NotReady("all threads of archives are busy with pictures that take too long; retry in a moment")

    def is_responsive(self) -> bool:
        """Tell whether live video and single requests each have a thread that is not stuck; archives can wait."""
        return not any(self.is_stuck(each) for each in (Priority.LIVE, Priority.SINGLE))


class Segmenter:
    """Segments frames; all transports share it."""

    def __init__(
        self,
        batcher: Batcher[Pixels, Inference],
        admission: Admission,
        pool: CpuPool,
        metrics: Metrics,
        tracing: Tracing,
        *,
        max_image_pixels: int,
        input_size: int = SIZE,
        unpack: Callable[[bytes, int], Picture] | None = None,
        side_outputs: SideOutputs | None = None,
    ) -> None:
        self._batcher = batcher
        self._admission = admission
        self._pool = pool
        self._metrics = metrics
        self._tracing = tracing
        self._max_image_pixels = max_image_pixels
        self._input_size = input_size
        self._unpack = unpack  # takes a picture out of what ``codec`` does not know
        self._side_outputs = side_outputs  # None: ``output=maps`` is disabled
        self._in_flight = 0
        metrics.queue_depth.set_function(lambda: admission.taken)
        metrics.in_flight.set_function(lambda: self._in_flight)

    @property
    def in_flight(self) -> int:
        """Return the number of frames that are not yet answered."""
        return self._in_flight

    async def segment(self, frame: Frame) -> Segmentation:
        """Segment one frame; cancelling the caller drops the work.

        Raises:
            NotReady: all threads of archives are stuck, whose priority the frame has, and it does not wait for a place.
            QueueFull: the queue is full, and the frame does not wait for a place.
            InvalidParameter: ``output=maps`` is disabled.
            DeadlineExceeded: the frame's deadline passed.
            ServiceError: the picture is refused, or inference failed on it.

        """
        # A separate task resumes at each stage without waking the coroutines around it.
        return await asyncio.ensure_future(self._process(frame))

    async def _process(self, frame: Frame) -> Segmentation:
        frame.priority, frame.made = frame.options.priority, time.perf_counter()
        with self._counted(frame):
            async with _within(frame.deadline):
                if frame.options.output is Output.MAPS and self._side_outputs is None:
                    raise InvalidParameter("output=maps is disabled on this server (MAPS); request another output")
                if frame.priority is Priority.ARCHIVE and not frame.waits_for_place:
                    self._pool.check_archives()  # it would hold a place in the queue until its time is over
                if frame.waits_for_place:
                    await self._admission.wait_for_place()
                self._admission.take(frame)
                frame.begun = True
                try:
                    self._metrics.decodes.inc()
                    limits = self._max_image_pixels, self._input_size
                    await self._pool.run(frame.priority, prepare, frame, *limits, self._unpack)
                    if frame.recall is not None:
                        await frame.recall(frame)
                    if frame.result is None:
                        await self._infer(frame)
                    else:
                        self._batcher.spare(frame)
                finally:
                    if frame.release is not None:  # it failed or was cancelled before it reached the device
                        frame.release()
                if frame.refine is not None:
                    await frame.refine(frame)
                if frame.options.output is Output.MAPS and self._side_outputs is not None:
                    with frame.stage("maps"):
                        await self._side_outputs.add_to(frame)
                answer = await self._pool.run(frame.priority, render, frame)
        frame.item = frame.result = frame.picture = frame.seen = None  # frees memory while the answer is sent
        frame.maps = []
        return answer

    async def _infer(self, frame: Frame) -> None:
        await self._batcher.submit(frame)
        frame.times["queue"] = frame.queued, frame.started
        frame.times["infer"] = frame.computed

    @contextmanager
    def _counted(self, frame: Frame) -> Iterator[None]:
        """Count the frame as in flight during the block, and record its outcome and stage times at the end."""
        self._in_flight += 1
        try:
            yield
        except BaseException as error:
            self._finish(frame, "abandoned" if isinstance(error, asyncio.CancelledError) else "failed", error)
            raise
        else:
            self._finish(frame, "answered", None)
        finally:
            self._in_flight -= 1

    def _finish(self, frame: Frame, outcome: str, failure: BaseException | None) -> None:
        ended = time.perf_counter()
        if self._tracing.keeps:
            self._tracing.record(frame.made, frame.times, failure)
        if frame.begun:  # otherwise it was refused, and is counted by cause
            self._metrics.frame_duration.labels(outcome).observe(ended - frame.made)
        if failure is None:
            for stage, (start, end) in frame.times.items():
                self._metrics.stage_duration.labels(stage).observe(end - start)
            self._metrics.frame_rate.append(time.monotonic())
            frame.times["total"] = frame.made, ended


def _timed(begun: dict[int, float], function: Callable[..., T], *args: object) -> T:
    """Run a function in this thread, and note meanwhile when it began."""
    thread = threading.get_ident()
    begun[thread] = time.monotonic()
    try:
        return function(*args)
    finally:
        del begun[thread]


def inference(predictor: Predictor) -> Infer[Pixels, Inference]:
    """Return the batcher's inference function for a predictor; infinite or undefined logits are an error."""

    def infer(frames: Sequence[Pixels]) -> list[Inference]:
        logits = predictor.predict(np.stack(frames))
        if not np.isfinite(logits).all():
            raise ArithmeticError("the network returned infinite or undefined logits")
        return [Inference(each, predictor.model) for each in logits]

    return infer


@asynccontextmanager
async def _within(deadline: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError:
        raise DeadlineExceeded from None
