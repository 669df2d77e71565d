"""Readiness: the phase of the service (starting, serving, draining), and whether inference and decoding answer."""

import asyncio
import time
from collections.abc import Callable
from enum import Enum

from service.errors import Draining, NotReady

INFERENCE_DEAD = 3  # exit code: the device hangs or a slot failed; the supervisor should restart the service
LOOK_SECONDS = 1.0  # between two looks at the pool, of which no event tells


class Phase(Enum):
    """The phases of the service, in their order."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"


class Readiness:
    """Tells whether the service accepts new work: in ``Phase.SERVING`` while inference and decoding answer."""

    def __init__(self, dead: asyncio.Event, decoding_answers: Callable[[], bool]) -> None:
        self.phase = Phase.STARTING
        self.since = time.monotonic()  # start of the phase, seconds
        self.changed = asyncio.Event()  # set when the phase changes
        self.dead = dead  # set by the batcher when inference no longer answers
        self._decoding_answers = decoding_answers

    def enter(self, phase: Phase) -> None:
        """Change to another phase, and wake ``change``."""
        self.phase, self.since = phase, time.monotonic()
        self.changed.set()

    async def change(self) -> None:
        """Wait until the phase changes or inference stops answering, and at most ``LOOK_SECONDS``."""
        events = [self.changed] if self.dead.is_set() else [self.changed, self.dead]
        waiting = [asyncio.ensure_future(event.wait()) for event in events]
        try:
            await asyncio.wait(waiting, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()
            self.changed.clear()

    @property
    def ready(self) -> bool:
        """Tell whether ``check`` would return."""
        return self.phase is Phase.SERVING and not self.dead.is_set() and self._decoding_answers()

    def check(self) -> None:
        """Raise an error unless the service accepts new work.

        Raises:
            NotReady: the service is starting, or inference or decoding no longer answers.
            Draining: the service is shutting down.

        """
        if self.phase is Phase.DRAINING:
            raise Draining("the service is shutting down; send the request to another instance")
        if self.phase is Phase.STARTING:
            raise NotReady("the service is warming up; retry in a moment")
        if self.dead.is_set():
            raise NotReady("inference no longer answers; the service will restart, so retry later")
        if not self._decoding_answers():
            raise NotReady(
                "all threads that decode pictures are busy with pictures that take too long; retry in a moment"
            )
