"""Video streams on a server: so many at so many frames a second, and how many it carries within a limit of age."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from pranet_client.async_client import AsyncClient
from pranet_client.connection import Reply, VideoFrame
from service.commands.bench.measure import Answer
from service.commands.stream_statistics import DROPS

DROPPED = frozenset(DROPS) - {"lost"}  # what the service decided; what was lost is a failure


async def streams(client: AsyncClient, images: Sequence[bytes], count: int, fps: float, until: float) -> list[Answer]:
    """Send ``count`` streams until a time of ``time.perf_counter``, their frames spread evenly over the interval."""
    each = (_stream(client, images, number / (count * fps), fps, until) for number in range(count))
    return [answer for answers in await asyncio.gather(*each) for answer in answers]


async def largest(holds: Callable[[int], Awaitable[bool]], limit: int) -> int:
    """Return the largest number from 1 to ``limit`` that holds, or 0: doubling, then halving the gap."""
    held, failed = 0, limit + 1
    while failed - held > 1:
        tried = min(2 * held or 1, limit) if failed > limit else (held + failed) // 2
        if await holds(tried):
            held = tried
        else:
            failed = tried
    return held


async def _stream(client: AsyncClient, images: Sequence[bytes], phase: float, fps: float, until: float) -> list[Answer]:
    return [_answer(reply) async for reply in client.stream(_frames(images, phase, fps, until))]


async def _frames(images: Sequence[bytes], phase: float, fps: float, until: float) -> AsyncIterator[VideoFrame]:
    """Yield a frame whenever one is due; its capture is the time at which it was due."""
    rotation = itertools.cycle(images)
    begin = time.perf_counter() + phase
    for number in itertools.count():
        due = begin + number / fps
        if due >= until:
            return
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        yield VideoFrame(number, next(rotation), due - time.perf_counter() + time.monotonic())


def _answer(reply: Reply) -> Answer:
    done = time.perf_counter()
    error = ""
    if reply.outcome == "failed" and reply.response is not None:
        error = reply.response.error.detail
    elif reply.outcome == "lost":
        error = "the connection broke before the answer"
    return Answer(done - reply.age_seconds, done, error, dropped=reply.outcome in DROPPED)
