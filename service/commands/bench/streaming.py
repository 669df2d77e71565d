"""Streams video to a server: several streams at a frame rate, and a search for the largest number that it sustains."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from pranet_client.async_client import AsyncClient
from pranet_client.connection import Reply
from pranet_client.pictures import VideoFrame
from service.commands.bench.measure import Answer
from service.commands.stream_statistics import DROPS

DROPPED = {*DROPS, "dropped"} - {"lost"}  # without a failure of anything; a lost frame counts as failed


async def streams(client: AsyncClient, images: Sequence[bytes], count: int, fps: float, until: float) -> list[Answer]:
    """Run ``count`` streams until ``until``, a time of ``time.perf_counter``; their frames alternate evenly."""
    each = (_stream(client, images, number / (count * fps), fps, until) for number in range(count))
    return [answer for answers in await asyncio.gather(*each) for answer in answers]


async def largest(holds: Callable[[int], Awaitable[bool]], limit: int) -> int:
    """Return the largest number up to ``limit`` for which ``holds`` is true, or 0; found by doubling and bisection."""
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
    """Yield frames at ``fps``; their capture times are the scheduled ones, even if the sender is late."""
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
