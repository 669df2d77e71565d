"""Whether new work is taken: starting, serving or draining, and whether inference still answers."""

import asyncio
import time
from enum import Enum

from service.errors import Draining, NotReady


class Phase(Enum):
    """Where the service is in its life."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"


class Readiness:
    """Whether new work is taken."""

    def __init__(self, dead: asyncio.Event) -> None:
        self.phase = Phase.STARTING
        self.since = time.monotonic()  # start of the phase, seconds
        self.changed = asyncio.Event()  # set when the phase changes
        self.dead = dead  # set when inference does not answer any more

    def enter(self, phase: Phase) -> None:
        """Go on to a phase."""
        self.phase, self.since = phase, time.monotonic()
        self.changed.set()

    async def change(self) -> None:
        """Wait until the phase changes, or inference dies."""
        events = [self.changed] if self.dead.is_set() else [self.changed, self.dead]
        waiting = [asyncio.ensure_future(event.wait()) for event in events]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()
            self.changed.clear()

    @property
    def ready(self) -> bool:
        """Tell whether ``check`` would return."""
        return self.phase is Phase.SERVING and not self.dead.is_set()

    def check(self) -> None:
        """Return if new work is taken.

        Raises:
            NotReady: the service is starting, or inference does not answer any more.
            Draining: the service is stopping.

        """
        if self.phase is Phase.DRAINING:
            raise Draining("the service is stopping; send the request to another instance")
        if self.phase is Phase.STARTING:
            raise NotReady("the service is warming up; retry in a moment")
        if self.dead.is_set():
            raise NotReady("inference does not answer; retry once the service was restarted")
