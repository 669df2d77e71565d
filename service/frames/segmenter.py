"""The data path of one frame; ``Segmenter.segment`` shows its whole life."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from model.cores import usable_cores
from model.engines.predictor import ModelRef, Predictor
from model.transforms import Floats, Pixels
from pranet_client.pictures import Picture
from service.batching.admission import Admission
from service.batching.batcher import Batcher, Infer
from service.batching.queue import Priority
from service.errors import DeadlineExceeded
from service.frames.codec import Packed
from service.frames.frame import Options, Prepared, Rendered, prepare, render
from service.observability.metrics import Metrics
from service.observability.stage_times import StageTimes
from service.observability.tracing import Tracing

T = TypeVar("T")
Refine = Callable[[Prepared, Floats], Awaitable[Floats]]


@dataclass(frozen=True, slots=True)
class Inference:
    """What the network said about one frame, and which weights said it."""

    logits: Floats  # S3, (352, 352)
    model: ModelRef


@dataclass(frozen=True, slots=True)
class Segmentation:
    """One answered frame."""

    width: int
    height: int
    options: Options
    rendered: Rendered
    model: ModelRef
    batch_size: int
    times: StageTimes


async def as_it_is(frame: Prepared, logits: Floats) -> Floats:
    """Leave the logits as the network gave them."""
    return logits


class Segmenter:
    """Takes pictures, answers segmentations; every transport shares it."""

    def __init__(
        self,
        batcher: Batcher[Pixels, Inference],
        admission: Admission,
        pool: ThreadPoolExecutor,
        metrics: Metrics,
        tracing: Tracing,
        *,
        max_image_pixels: int,
    ) -> None:
        self._batcher = batcher
        self._admission = admission
        self._pool = pool
        self._metrics = metrics
        self._tracing = tracing
        self._max_image_pixels = max_image_pixels
        self._bulk = asyncio.Semaphore(max(1, usable_cores() // 2))
        self._in_flight = 0
        self.idle = asyncio.Event()  # set while nothing is in flight
        self.idle.set()
        metrics.queue_depth.set_function(lambda: admission.taken)
        metrics.in_flight.set_function(lambda: self._in_flight)

    @property
    def in_flight(self) -> int:
        """Count the frames accepted and not yet answered."""
        return self._in_flight

    async def segment(
        self,
        picture: Picture | Packed,
        options: Options,
        deadline: float,
        *,
        refine: Refine = as_it_is,
        patient: bool = False,
    ) -> Segmentation:
        """Segment one picture; cancelling the caller drops the work.

        Args:
            picture: JPEG, PNG, WebP, BMP or TIFF, or raw pixels; one in an archive is unpacked when its turn comes.
            options: output, threshold, region, priority.
            deadline: loop time, seconds, at which the answer is of no use any more.
            refine: what a stream does with the logits of a frame that is off the device.
            patient: wait for a place where another would get ``QueueFull``.

        Raises:
            ServiceError: any of its subclasses that concern a frame.

        """
        times = StageTimes()
        with self._counted(), self._tracing.frame(times):
            async with _within(deadline):
                if patient:
                    await self._admission.room()
                with self._admission.place() as place:
                    self._metrics.decodes.inc()
                    frame = await self._run(options.priority, prepare, picture, options, self._max_image_pixels, times)
                    del picture  # up to MAX_IMAGE_BYTES, which need not wait for the device
                    batched = await self._batcher.submit(
                        frame.pixels, deadline=deadline, priority=options.priority, on_start=place.release
                    )
                times.record("queue", batched.submitted, batched.queue_seconds)
                times.record("infer", batched.started, batched.infer_seconds)
                logits = await refine(frame, batched.result.logits)
                presence = batched.result.model.presence
                rendered = await self._run(options.priority, render, frame, logits, options, times, presence)
        self._observe(times)
        return Segmentation(
            frame.width, frame.height, options, rendered, batched.result.model, batched.batch_size, times
        )

    async def _run(self, priority: Priority, function: Callable[..., T], *args: object) -> T:
        """Run a function in the CPU pool, which knows no priorities: bulk takes half of its threads at most."""
        async with self._bulk if priority is Priority.ARCHIVE else nullcontext():
            return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        began, outcome = time.perf_counter(), "failed"
        self._in_flight += 1
        self.idle.clear()
        try:
            yield
            outcome = "answered"
        except asyncio.CancelledError:
            outcome = "abandoned"
            raise
        finally:
            self._metrics.frame_duration.labels(outcome).observe(time.perf_counter() - began)
            self._in_flight -= 1
            if not self._in_flight:
                self.idle.set()

    def _observe(self, times: StageTimes) -> None:
        for stage, seconds in times.items():
            self._metrics.stage_duration.labels(stage).observe(seconds)
        self._metrics.frame_rate.count()
        times.finish()


def inference(predictor: Predictor) -> Infer[Pixels, Inference]:
    """Wrap a predictor for the batcher; logits that are not finite are a failure, never an answer."""

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
        raise DeadlineExceeded("the frame was not segmented in time; retry, or allow more time") from None
