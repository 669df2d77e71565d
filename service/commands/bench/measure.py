"""What a measurement consists of: answers in a window of time, processor seconds, and the row that sums them up."""

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Answer:
    """One call; times in seconds of ``time.perf_counter``."""

    due: float  # when it was to be sent: a late sender does not flatter the server
    done: float
    error: str = ""
    frames: int = 1
    dropped: bool = False  # a frame of a stream that the service answered without a mask, as it may


@dataclass(frozen=True, slots=True)
class Window:
    """The time that counts, after the warm-up, and the processor seconds spent in it."""

    begin: float
    end: float
    server_cpu: float | None  # None where nobody reports it
    own_cpu: float | None  # of this process, where it is only the client


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table."""

    load: str
    answered: int
    failed: int
    frames_per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    server_cpu_ms: float | None  # per frame
    client_cpu_ms: float | None  # per frame; None where the process measures itself
    first_error: str = ""
    dropped: int | None = None  # where there were any


def summarise(load: str, answers: Sequence[Answer], window: Window) -> Row:
    """Sum up a window; an answer counts for the share of its life that fell into it, so batches cause no edges."""
    inside = [answer for answer in answers if answer.done > window.begin and answer.due < window.end]
    good = [answer for answer in inside if not answer.error and not answer.dropped]
    errors = [answer.error for answer in answers if answer.error]
    frames = sum(answer.frames * _share(answer, window) for answer in good)
    latencies = [1e3 * (answer.done - answer.due) for answer in good] or [float("nan")]
    p50, p90, p99 = (float(each) for each in np.percentile(latencies, (50, 90, 99)))
    per_frame = 1e3 / frames if frames else float("nan")
    return Row(
        load,
        len(good),
        len(errors),
        frames / (window.end - window.begin),
        p50,
        p90,
        p99,
        None if window.server_cpu is None else window.server_cpu * per_frame,
        None if window.own_cpu is None else window.own_cpu * per_frame,
        next(iter(errors), ""),
        sum(answer.dropped for answer in inside) or None,
    )


def own_cpu_seconds() -> float:
    """Return user and system time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def timed(call: Callable[[], None], frames: int) -> Answer:
    """Make one call."""
    due = time.perf_counter()
    call()
    return Answer(due, time.perf_counter(), frames=frames)


def _share(answer: Answer, window: Window) -> float:
    inside = min(answer.done, window.end) - max(answer.due, window.begin)
    return inside / (answer.done - answer.due)
