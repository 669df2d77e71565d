"""The end of the service: it refuses new work, and waits until what it has accepted is answered."""

import asyncio
import contextlib
import logging
from collections import Counter

from service.calls import Calls
from service.clients.awaited import CUT_OFF_SECONDS, READER
from service.readiness import Phase
from service.runtime import Service
from service.settings import variable

LOOK_SECONDS = 1.0  # between two looks at what holds the drain up

log = logging.getLogger(__name__)


async def drain(service: Service) -> int:
    """Drain: refuse new work and wait until accepted requests are answered; return the exit code."""
    service.readiness.enter(Phase.DRAINING)
    service.streams.drain()
    calls, seconds = service.calls, service.settings.drain_seconds
    held_up: Counter[str] = Counter()  # calls cut off, by what their clients did not do
    try:
        async with asyncio.timeout(seconds):
            while not await _idle(calls, LOOK_SECONDS) or calls.readers.left:
                held_up.update(call.awaited.what for call in calls.cut_off(stalled_only=True))
                held_up[READER] += await calls.readers.look()
    except TimeoutError:
        if calls.idle.is_set():  # otherwise connections of calls that are cut off would count twice
            held_up[""] += calls.readers.give_up()
        held_up.update(call.awaited.what for call in calls.cut_off())
        await _idle(calls, CUT_OFF_SECONDS)
    unanswered = held_up.pop("", 0)
    for what, number in (+held_up).items():
        log.warning("requests and streams cut off whose clients %s: %d; the service did not hold them up", what, number)
    if unanswered:
        log.error(
            "requests and streams cut off unanswered after %g s: %d; raise %s, or lower %s so that fewer wait",
            *(seconds, unanswered, variable("drain_seconds"), variable("max_queue_size")),
        )
        return 1
    log.info("every accepted request was answered that its client had sent and waited for")
    return 0


async def _idle(calls: Calls, seconds: float) -> bool:
    """Wait until no call is left to answer, at most so long; return whether none is."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await calls.idle.wait()
    return calls.idle.is_set()
