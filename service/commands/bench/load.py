"""Load on a server: closed loop (a fixed number of requests in flight) or open loop (a fixed rate of requests)."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

import numpy as np

from service.commands.bench.measure import Answer, Window, own_cpu_seconds

Send = Callable[[bytes], Awaitable[object]]  # raises an error if it fails
Load = Callable[[float], Awaitable[list[Answer]]]  # takes the time of its end, by time.perf_counter
ServerCpu = Callable[[], Awaitable[float | None]]

GRACE_SECONDS = 30.0  # timeout of a request


async def closed_loop(send: Send, images: Sequence[bytes], concurrency: int, until: float) -> list[Answer]:
    """Keep ``concurrency`` requests in flight until ``until``, a time of ``time.perf_counter``; return all answers."""
    rotation = itertools.cycle(images)
    answers: list[Answer] = []

    async def worker() -> None:
        while (due := time.perf_counter()) < until:
            answers.append(await _answer(send, next(rotation), due))

    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return answers


async def open_loop(
    send: Send, images: Sequence[bytes], rate: float, until: float, *, poisson: bool, seed: int = 0
) -> list[Answer]:
    """Send ``rate`` requests per second, evenly or as a Poisson process; latencies count from the scheduled times."""
    rotation = itertools.cycle(images)
    sent: list[asyncio.Task[Answer]] = []
    for due in _schedule(rate, time.perf_counter(), until, poisson, seed):
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        sent.append(asyncio.create_task(_answer(send, next(rotation), due)))
    return list(await asyncio.gather(*sent))


async def watched(load: Load, server_cpu: ServerCpu, *, warm_up: float, seconds: float) -> tuple[list[Answer], Window]:
    """Run a load for ``warm_up`` and then ``seconds``; also measure the CPU time spent during the latter."""
    begin = time.perf_counter() + warm_up
    running = asyncio.ensure_future(load(begin + seconds))
    marks = []
    for mark in (begin, begin + seconds):
        await asyncio.sleep(mark - time.perf_counter())
        marks.append((time.perf_counter(), await server_cpu(), own_cpu_seconds()))
    (opened, server_before, own_before), (closed, server_after, own_after) = marks
    server = None if server_before is None or server_after is None else server_after - server_before
    return await running, Window(opened, closed, server, own_after - own_before)


async def _answer(send: Send, image: bytes, due: float) -> Answer:
    error = ""
    try:
        async with asyncio.timeout(GRACE_SECONDS):
            await send(image)
    except Exception as fault:  # a benchmark counts failures of every kind
        error = f"{type(fault).__name__}: {fault}"[:200]
    return Answer(due, time.perf_counter(), error)


def _schedule(rate: float, begin: float, until: float, poisson: bool, seed: int) -> Iterator[float]:
    random = np.random.default_rng(seed)
    due = begin
    while due < until:
        yield due
        due += float(random.exponential(1 / rate)) if poisson else 1 / rate
