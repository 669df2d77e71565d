"""One video stream, whatever carries it: exactly one answer for every frame, in the order of the frames.

    received --> waits, encoded --> has its turn: decode, queue, infer, render --> its answer waits for those before
                      |                                |                              |
                      +- replaced        -> STALE      +- the service is full         +- sent
                      +- deadline passed -> DEADLINE   |  (only LATEST) -> OVERLOAD
                                                       +- any fault -> error, and the stream goes on

What is dropped was never decoded; a frame whose deadline passes after its decoding has begun fails with
``DeadlineExceeded``. Memory is bounded: a frame is read only while fewer than a limit are unanswered, so a client that
does not read its answers, or under ``EVERY`` sends faster than they come, is stalled by its own transport.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from model.transforms import Floats
from service.access.rate_limits import Allowance
from service.errors import ClientLeft, Draining, InternalError, QueueFull, RateLimited, ReadTooSlowly, ServiceError
from service.frames.codec import Picture
from service.frames.frame import Options, Prepared
from service.frames.segmenter import Segmentation, Segmenter
from service.observability.metrics import StreamMetrics
from service.streams.capture_clock import ClockMapping
from service.streams.temporal import Memory, Status
from service.streams.window import Drop, Policy, Turn, Window
from service.tasks.group import Together

MAX_SMOOTHING_MS = 2000
UNREAD_SECONDS = 30.0  # that an answer may wait for its client to take it; then the stream ends
MAX_UNREAD = 256  # answers, nearly all of them short drops, that wait for a client that does not read

Outcome = Segmentation | Drop | ServiceError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """What the first message of a stream says."""

    policy: Policy = Policy.LATEST
    deadline_ms: float | None = None  # from capture
    frame: Options = field(default_factory=Options)
    smoothing_ms: float = 0.0  # time constant; 0 is off
    hysteresis: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it came; an encoded picture stays encoded until its turn."""

    frame_id: int  # the client's own; only echoed
    picture: Picture
    capture_time_us: int | None = None  # by any clock of the client that only goes forward


@dataclass(frozen=True, slots=True)
class Answer:
    """The one answer of a frame."""

    frame_id: int
    outcome: Outcome
    age_seconds: float  # from capture to this answer, without the constant part of the network's delay
    window_seconds: float  # that the frame waited for its turn, or until it was dropped
    status: Status = field(default_factory=Status)  # of a frame that the network has seen


@dataclass(slots=True, eq=False)
class _Entry:
    """A frame between its arrival and its answer. It does not hold the picture, which may be dropped long before."""

    frame_id: int
    received: float  # monotonic clock, seconds
    captured: float  # the same
    deadline: float | None  # loop time, seconds
    window_seconds: float = 0.0
    turn: Turn | None = None
    status: Status = field(default_factory=Status)


_Unanswered = asyncio.Queue[tuple[_Entry, asyncio.Task[Outcome]] | None]  # in the order of the frames


class Stream:
    """An open stream; ``run`` is its whole life."""

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
    ) -> None:
        self._segmenter = segmenter
        self._options = options
        self._metrics = metrics
        self._draining = draining
        self._allowance = allowance
        self._frame_timeout = frame_timeout  # seconds from a frame's turn to its answer
        self._window = Window(options.policy, window)
        self._clock = ClockMapping()
        self._memory = Memory(
            smoothing=options.smoothing_ms / 1e3, hysteresis=options.hysteresis, threshold=options.frame.threshold
        )
        limit = window if options.policy is Policy.EVERY else max(window, MAX_UNREAD)
        self._may_read = asyncio.Semaphore(limit - 1)  # taken after a frame, before the next one
        self._ending: ServiceError | None = None

    async def run(self, frames: AsyncIterator[Frame], send: Callable[[Answer], Awaitable[None]]) -> None:
        """Answer every frame, in order, until ``frames`` ends; cancelling it drops all work.

        Raises:
            Draining: the service stops; every accepted frame was answered.
        ReadTooSlowly: the client did not take an answer.
            ServiceError: ``frames`` or ``send`` raised it; in the first case every accepted frame was answered.

        """
        unanswered: _Unanswered = asyncio.Queue()  # not the stream's own: a cancelled frame in it holds the stream
        try:
            async with Together() as tasks:
                receiving = tasks.create_task(self._receive(frames, tasks, unanswered))
                watching = tasks.create_task(self._end_when_draining(receiving))
                while (first := await unanswered.get()) is not None:
                    entry, life = first
                    await self._answer(entry, await life, send)
                    self._may_read.release()
                watching.cancel()
        except ServiceError:
            raise
        except Exception:
            self._metrics.close("failed")
            raise
        finally:
            self._metrics.close("abandoned")
        if self._ending:
            raise self._ending

    async def _receive(self, frames: AsyncIterator[Frame], tasks: asyncio.TaskGroup, unanswered: _Unanswered) -> None:
        try:
            async for frame in frames:
                entry = self._accept(frame)
                unanswered.put_nowait((entry, tasks.create_task(self._live(entry, frame.picture))))
                await self._may_read.acquire()
        except ClientLeft:
            raise  # nobody waits for the open answers
        except ServiceError as error:
            self._ending = error
        finally:
            unanswered.put_nowait(None)

    def _accept(self, frame: Frame) -> _Entry:
        self._metrics.received()
        captured = received = time.monotonic()
        if frame.capture_time_us is not None:
            captured = self._clock.captured(frame.capture_time_us / 1e6, received)
        deadline = None
        if self._options.deadline_ms is not None:
            left = captured + self._options.deadline_ms / 1e3 - received
            deadline = asyncio.get_running_loop().time() + left
        return _Entry(frame.frame_id, received, captured, deadline)

    async def _live(self, entry: _Entry, picture: Picture) -> Outcome:
        """Follow one frame from its arrival to its outcome."""
        turn = await self._window.turn(entry.deadline)
        entry.window_seconds = time.monotonic() - entry.received
        if isinstance(turn, Drop):
            return turn
        entry.turn = turn

        async def refine(frame: Prepared, logits: Floats) -> Floats:
            await turn.in_order()
            shown, entry.status = await asyncio.to_thread(
                self._memory.update, frame.pixels, frame.box, logits, entry.captured
            )
            turn.leave_device()
            return shown

        patient = self._options.policy is Policy.EVERY
        try:
            await self._spend(patient)
            return await self._segmenter.segment(
                picture,
                self._options.frame,
                self._last_moment(entry),
                refine=refine,
                patient=patient,
            )
        except (QueueFull, RateLimited):
            return Drop.OVERLOAD
        except ServiceError as error:
            return error
        except Exception:
            log.exception("a frame failed")
            return InternalError("frame")
        finally:
            turn.leave_device()

    async def _spend(self, patient: bool) -> None:
        if patient:
            await self._allowance.wait()
        else:
            self._allowance.take()

    def _last_moment(self, entry: _Entry) -> float:
        patience = asyncio.get_running_loop().time() + self._frame_timeout
        return patience if entry.deadline is None else min(patience, entry.deadline)

    async def _answer(self, entry: _Entry, outcome: Outcome, send: Callable[[Answer], Awaitable[None]]) -> None:
        age = time.monotonic() - entry.captured
        try:
            async with asyncio.timeout(UNREAD_SECONDS):
                await send(Answer(entry.frame_id, outcome, age, entry.window_seconds, entry.status))
        except TimeoutError:
            raise ReadTooSlowly(
                f"an answer was not taken within {UNREAD_SECONDS:g} s; read them as they come"
            ) from None
        if entry.turn:
            self._window.answer_taken()
        if isinstance(outcome, Segmentation):
            self._metrics.answered(age)
        else:
            self._metrics.count("failed" if isinstance(outcome, ServiceError) else outcome.value)

    async def _end_when_draining(self, receiving: asyncio.Task[None]) -> None:
        await self._draining.wait()
        self._ending = Draining("the service is stopping; every frame it had accepted is answered. Stream elsewhere")
        receiving.cancel()
