"""One video stream of any transport: every frame gets exactly one answer, in the order of the frames.

    received --> waits, encoded --> has its turn: decode, queue, infer, render --> waits for earlier answers
                      |                                |                              |
                      +- replaced        -> STALE      +- the queue is full           +- sent
                      +- deadline passed -> DEADLINE   |  (only LATEST) -> OVERLOAD
                                                       +- deadline passed before it was decoded -> DEADLINE
                                                       +- any other error -> failed, and the stream goes on

Dropped frames are never decoded. A frame whose deadline passes after its decoding has begun fails with
``DeadlineExceeded``. Memory is bounded by backpressure: a frame is read only while fewer than a limit are unanswered.
So the transport stalls a client that does not read its answers, or under ``EVERY`` sends faster than it gets answers.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace

from service.access.rate_limits import Allowance
from service.errors import (
    ClientLeft,
    DeadlineExceeded,
    Draining,
    InternalError,
    QueueFull,
    RateLimited,
    ReadTooSlowly,
    ServiceError,
)
from service.frames.frame import Frame, Options, Segmentation
from service.frames.segmenter import Segmenter
from service.observability.stream_metrics import StreamMetrics
from service.streams.capture_clock import ClockMapping
from service.streams.frame import Drop, Outcome, StreamFrame
from service.streams.reuse import Reuse, inferred
from service.streams.temporal import TemporalFilter
from service.streams.window import Policy, Window
from service.tasks import FirstErrorTaskGroup, drop_tracebacks

MAX_SMOOTHING_MS = 2000
MAX_UNREAD = 256  # unanswered frames under LATEST; nearly all of them are short answers to dropped frames

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """The configuration of a stream, from its first message."""

    policy: Policy = Policy.LATEST
    deadline_ms: float | None = None  # from capture
    frame: Options = field(default_factory=Options)
    smoothing_ms: float = 0.0  # time constant; 0: off
    hysteresis: bool = False
    reuse: bool = False  # of logits, where frames show the same


# Frames in the order of their arrival, each with the task that processes it; None at the end of the stream.
_Unanswered = asyncio.Queue["tuple[StreamFrame, asyncio.Task[None]] | None"]


async def read_in_time(sending: Awaitable[None], seconds: float | None) -> None:
    """Wait until an answer of a stream is sent, which takes as long as the client does not read; None: any time.

    Raises:
        ReadTooSlowly: it took longer.

    """
    try:
        async with asyncio.timeout(seconds) as limit:
            await sending
    except TimeoutError:
        if not limit.expired():
            raise
        raise ReadTooSlowly(
            f"an answer was not read within {seconds:g} s; read the answers while you send frames"
        ) from None
    finally:
        del limit  # see ``_segmented``


class Stream:
    """An open stream; ``run`` serves it from its first frame to its end."""

    def __init__(
        self,
        segmenter: Segmenter,
        options: StreamOptions,
        metrics: StreamMetrics,
        draining: asyncio.Event,
        *,
        allowance: Allowance,
        window: int,
        frame_timeout: float,
        unread_timeout: float | None,
    ) -> None:
        self._segmenter = segmenter
        self._options = options
        self._metrics = metrics
        self._draining = draining
        self._allowance = allowance
        self._frame_timeout = frame_timeout  # seconds from a frame's turn to its answer
        self._unread_timeout = unread_timeout  # seconds from an answer to its being read; None: any
        self._window = Window(options.policy, window)
        self._clock = ClockMapping()
        self._filter = TemporalFilter(
            smoothing=options.smoothing_ms / 1e3, hysteresis=options.hysteresis, threshold=options.frame.threshold
        )
        self._weights = ""  # hash of those that the last frame was answered with
        self._reuse = Reuse() if options.reuse else None
        limit = window if options.policy is Policy.EVERY else max(window, MAX_UNREAD)
        self._may_read = asyncio.Semaphore(limit - 1)  # acquired after each frame, before reading the next
        self._ending: ServiceError | None = None

    async def run(self, frames: AsyncIterator[StreamFrame], send: Callable[[StreamFrame], Awaitable[None]]) -> None:
        """Answer every frame, in order, until ``frames`` ends; cancelling drops all work.

        Raises:
            Draining: the service is shutting down; every accepted frame was answered.
            ReadTooSlowly: the client did not read an answer within the unread timeout.
            ServiceError: raised by ``frames``, after every accepted frame was answered, or by ``send``.

        """
        unanswered: _Unanswered = asyncio.Queue()  # no attribute: a cancelled frame in it would be a reference cycle
        try:
            async with FirstErrorTaskGroup() as tasks:
                receiving = tasks.create_task(self._receive(frames, tasks, unanswered))
                watching = tasks.create_task(self._end_when_draining(receiving, unanswered))
                while (first := await unanswered.get()) is not None:
                    frame, processing = first
                    await processing
                    await self._answer(frame, send)
                    self._may_read.release()
                watching.cancel()
                receiving.cancel()  # while the service drains, it goes on
        except ServiceError:
            raise
        except Exception:
            self._metrics.close("failed")
            raise
        finally:
            self._metrics.close("abandoned")
        if self._ending:
            raise self._ending

    async def _receive(
        self, frames: AsyncIterator[StreamFrame], tasks: asyncio.TaskGroup, unanswered: _Unanswered
    ) -> None:
        try:
            async for frame in frames:
                if self._ending:
                    continue  # only to hear if the client leaves
                self._accept(frame)
                unanswered.put_nowait((frame, tasks.create_task(self._process(frame))))
                await self._may_read.acquire()
        except ClientLeft:
            raise  # the remaining answers have no reader
        except ServiceError as error:
            self._ending = self._ending or error
        finally:
            unanswered.put_nowait(None)

    def _accept(self, frame: StreamFrame) -> None:
        self._metrics.received()
        frame.captured = frame.received = frame.moment = time.monotonic()
        frame.options = self._options.frame
        frame.waits_for_place = self._options.policy is Policy.EVERY
        frame.recall = self._reuse.recall if self._reuse else None
        frame.refine = self._refine
        if frame.capture_time_us is not None:
            frame.captured = self._clock.captured(frame.capture_time_us / 1e6, frame.received)
        # The client's own clock: how fast a recording is read, and the network's jitter, must not change a mask.
        own = frame.capture_time_us if frame.presentation_time_us is None else frame.presentation_time_us
        if own is not None:
            frame.moment = own / 1e6
        if self._options.deadline_ms is not None:
            left = frame.captured + self._options.deadline_ms / 1e3 - frame.received
            frame.expires = asyncio.get_running_loop().time() + left

    async def _process(self, frame: StreamFrame) -> None:
        """Process one frame from its arrival to its outcome: wait for its turn, then segment it."""
        try:
            frame.outcome = await self._window.turn(frame)
            frame.window_seconds = time.monotonic() - frame.received
            if frame.outcome is None:
                frame.outcome = await self._segmented(frame)
        finally:  # the stream has references to the frame: breaks the reference cycle
            frame.source = frame.recall = frame.refine = None

    async def _segmented(self, frame: StreamFrame) -> Outcome:
        loop, expiry = asyncio.get_running_loop(), asyncio.timeout_at(frame.expires)
        try:
            if self._reuse:
                await self._reuse.turn(frame)
            if frame.expires is not None and frame.expires <= loop.time():
                return Drop.DEADLINE
            async with expiry:
                if frame.waits_for_place:
                    await self._allowance.wait()
                else:
                    self._allowance.take()
            limit = loop.time() + self._frame_timeout
            frame.deadline = limit if frame.expires is None else min(limit, frame.expires)
            return await self._segmenter.segment(frame)
        except (QueueFull, RateLimited):
            return Drop.OVERLOAD
        except ServiceError as error:
            if isinstance(error, DeadlineExceeded) and frame.deadline == frame.expires and not frame.begun:
                return Drop.DEADLINE
            drop_tracebacks(error)  # the frame refers to the error as its outcome: breaks the reference cycle
            return error
        except Exception:
            if expiry.expired():
                return Drop.DEADLINE
            log.exception("a frame failed")
            return InternalError("frame")
        finally:
            del expiry  # holds the task, and the task's cancellation this stack frame: breaks the reference cycle
            if self._reuse:
                self._reuse.ended(frame)
            self._window.left_device(frame)

    async def _refine(self, frame: Frame) -> None:
        """Apply smoothing and hysteresis to a frame's logits, in the order of the frames."""
        assert isinstance(frame, StreamFrame)
        assert frame.item is not None
        assert frame.result is not None
        inferred(frame)
        await self._window.in_order(frame)
        if frame.result.model.weights_sha256 != self._weights:
            self._weights = frame.result.model.weights_sha256
            self._filter.restart()  # logits of other weights are not mixed into these
        call = asyncio.to_thread(self._filter.update, frame.item, frame.box, frame.result.logits, frame.moment)
        updating = asyncio.ensure_future(call)
        try:
            logits, status = await asyncio.shield(updating)
        except asyncio.CancelledError:
            await asyncio.wait([updating])  # the thread goes on; the next frame must not come in between
            raise
        frame.seen, frame.quality = status.seen, status.quality
        frame.status = replace(status, seen=None)  # frees memory while the answer waits
        frame.result = replace(frame.result, logits=logits)
        self._window.left_device(frame)

    async def _answer(self, frame: StreamFrame, send: Callable[[StreamFrame], Awaitable[None]]) -> None:
        frame.age_seconds = time.monotonic() - frame.captured
        await read_in_time(send(frame), self._unread_timeout)
        if frame.had_turn:
            self._window.answer_taken()
        if isinstance(frame.outcome, Segmentation):
            is_live = self._options.policy is Policy.LATEST
            self._metrics.answered(frame.age_seconds if is_live else None, reused=frame.reused)
        elif isinstance(frame.outcome, Drop):
            self._metrics.count(frame.outcome.value)
        elif isinstance(frame.outcome, ServiceError):
            self._metrics.failed(frame.outcome)

    async def _end_when_draining(self, receiving: asyncio.Task[None], unanswered: _Unanswered) -> None:
        await self._draining.wait()
        if receiving.done():
            return  # the client has sent its last frame
        self._ending = Draining(
            "the service is shutting down and has answered all accepted frames; use another instance"
        )
        self._may_read.release()  # also behind a full window
        unanswered.put_nowait(None)
