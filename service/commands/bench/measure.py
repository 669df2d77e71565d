"""Measurements: answers in a window of time, CPU seconds, and the table row that summarises them."""

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered or failed request; times in seconds of ``time.perf_counter``."""

    due: float  # scheduled time, so that a late sender does not hide the server's latency
    done: float
    error: str = ""
    frames: int = 1
    dropped: bool = False  # a frame of a stream that the service dropped, which is no failure


@dataclass(frozen=True, slots=True)
class Window:
    """The measured time after the warm-up, and the CPU seconds spent in it."""

    begin: float
    end: float
    server_cpu: float | None  # None if the server does not report it
    own_cpu: float | None  # of this process; None if it is not only the client


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
    client_cpu_ms: float | None  # per frame; None if no server is involved
    first_error: str = ""
    dropped: int | None = None  # None if there were none


def summarise(load: str, answers: Sequence[Answer], window: Window) -> Row:
    """Summarise a window.

    An answer that is only partly inside counts by the share of its time inside. Otherwise the rate would depend on
    where the window cuts a batch.
    """
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
    """Return the user and system CPU time of this process, seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def timed(call: Callable[[], None], frames: int) -> Answer:
    """Run ``call``, which processes ``frames`` frames, and return its times."""
    due = time.perf_counter()
    call()
    return Answer(due, time.perf_counter(), frames=frames)


def _share(answer: Answer, window: Window) -> float:
    inside = min(answer.done, window.end) - max(answer.due, window.begin)
    return inside / (answer.done - answer.due)
