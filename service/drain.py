"""The end of the service: it refuses new work, and waits until what it has accepted is answered and read.

It waits for the calls that were accepted before, each until its task has ended: over gRPC, once a single answer is
sent. Then it waits for the clients of their connections, until they have read what was written by then.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Hashable

from service.calls import Call, Calls
from service.clients.awaited import CUT_OFF_SECONDS, READER
from service.clients.connections import open_connections
from service.clients.readers import Readers
from service.readiness import Phase
from service.runtime import Service
from service.settings import variable

LOOK_SECONDS = 1.0  # between two looks at what holds the drain up
READING_SECONDS = 0.1  # the same, once only answers are still to be read

log = logging.getLogger(__name__)


async def drain(service: Service) -> int:
    """Drain: refuse new work and wait until accepted requests are answered; return the exit code."""
    service.readiness.enter(Phase.DRAINING)
    left, seconds = _Left(service.calls), service.settings.drain_seconds
    service.streams.drain()
    try:
        async with asyncio.timeout(seconds):
            while left.look():
                await left.change(LOOK_SECONDS)
    except TimeoutError:
        left.cut_off()
        await left.change(CUT_OFF_SECONDS)
    unanswered = left.held_up.pop("", 0)
    for what, number in (+left.held_up).items():
        log.warning("requests and streams cut off whose clients %s: %d; the service did not hold them up", what, number)
    if unanswered:
        log.error(
            "requests and streams cut off unanswered after %g s: %d; raise %s, or lower %s so that fewer wait",
            *(seconds, unanswered, variable("drain_seconds"), variable("max_queue_size")),
        )
        return 1
    log.info("every accepted request was answered that its client had sent and waited for")
    return 0


class _Left:
    """What is left of the work that the service has accepted: calls, and then answers that clients still read."""

    def __init__(self, calls: Calls) -> None:
        self.held_up: Counter[str] = Counter()  # cut off, by what the clients did not do; empty: nothing
        self._sources = calls.sources
        self._calls = dict(calls.unanswered)  # all that come later are refused
        self._cut_off: set[Call] = set()
        self._readers = Readers()
        self._written = {each.key for each in open_connections(self._sources).values() if each.had_work}
        self._began = time.monotonic()

    def look(self) -> bool:
        """Look at what is left, and cut off clients that stall; tell whether anything is left."""
        connections = open_connections(self._sources)
        for task, call in list(self._calls.items()):
            if task.done():
                self._has_ended(task)
                continue
            if (connection := connections.get(call.connection)) is not None:
                call.awaited = call.awaited.after_reading(connection.taken, connection.aside)
            if call.awaited.is_stalled_since(self._began):
                self._end(task, call.awaited.what)
        busy: set[Hashable] = {call.connection for call in self._calls.values()}
        for key in self._written - busy:
            if key in connections:
                self._readers.expect(connections[key])
        self._written &= busy
        self.held_up[READER] += self._readers.look(connections)
        return bool(self._calls or self._readers)

    async def change(self, seconds: float) -> None:
        """Wait until all calls have ended, at most so long; without calls, wait a little."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=seconds)
        else:
            await asyncio.sleep(READING_SECONDS)

    def cut_off(self) -> None:
        """Cut off all that is left. A client that still reads would need more time, and one that still sends not."""
        connections = open_connections(self._sources)
        self.held_up[READER] += self._readers.look(connections)
        for task, call in list(self._calls.items()):
            self._end(task, "" if call.awaited.what == READER else call.awaited.what)
        self.held_up[""] += self._readers.give_up(connections)

    def _has_ended(self, task: asyncio.Task[object]) -> None:
        if (call := self._calls.pop(task)) not in self._cut_off:
            self._written.add(call.connection)

    def _end(self, task: asyncio.Task[object], what: str) -> None:
        """Cut off a call, whose error then has time to be read; an answer on its way ends with the servers."""
        call = self._calls[task]
        self.held_up[what] += call not in self._cut_off
        self._cut_off.add(call)
        self._written.discard(call.connection)  # the call was counted for it
        call.cut_off()
        if call.is_answered:
            del self._calls[task]
