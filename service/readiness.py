"""Readiness: the phase of the service (starting, serving, draining), and whether inference and decoding answer.

Each process has its own. Those of a group tell each other, so that ``/readyz`` speaks for the service.
"""

import asyncio
import time
from collections.abc import Callable
from enum import Enum

from service.errors import Draining, NotReady
from service.processes.group import Group, State

INFERENCE_DEAD = 3  # exit code: the device hangs or a slot failed; the supervisor should restart the service
LOOK_SECONDS = 1.0  # between two looks at the pool, of which no event tells


class Phase(Enum):
    """The phases of the service, in their order."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"


class Readiness:
    """Tells whether this process accepts new work: in ``Phase.SERVING`` while inference and decoding answer."""

    def __init__(self, dead: asyncio.Event, decoding_answers: Callable[[], bool], group: Group) -> None:
        self.phase = Phase.STARTING
        self.since = time.monotonic()  # start of the phase, seconds
        self.changed = asyncio.Event()  # set when the phase changes
        self.dead = dead  # set by the batcher when inference no longer answers
        self._decoding_answers = decoding_answers
        self._group = group

    def enter(self, phase: Phase) -> None:
        """Change to another phase, and wake ``change``."""
        self.phase, self.since = phase, time.monotonic()
        self.tell()
        self.changed.set()

    def tell(self) -> None:
        """Let the other processes of the service know whether this one is ready."""
        self._group.become(State.READY if self.ready else State.UNREADY)

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
            self.tell()

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
                "all threads of live video, or all of single requests, are busy with pictures that take too long; "
                "retry in a moment"
            )

    @property
    def service_ready(self) -> bool:
        """Tell whether ``check_service`` would return."""
        try:
            self.check_service()
        except (Draining, NotReady):
            return False
        return True

    def check_service(self) -> dict[str, int]:
        """Raise an error unless some process of the service accepts new work; return how many do, if it has several.

        A start is over once all processes have been ready at once. From then on, one is enough.

        Raises:
            NotReady: the service is starting, or no process accepts work.
            Draining: the service is shutting down.

        """
        group = self._group
        if group.size == 1:
            self.check()
            return {}
        if group.draining:
            raise Draining("the service is shutting down; send the request to another instance")
        self.tell()
        if not group.started:
            raise NotReady(f"{group.ready} of {group.size} processes have warmed up; retry in a moment")
        if not group.ready:
            raise NotReady(f"none of the {group.size} processes accepts work; they are replaced, so retry later")
        return {"processes": group.size, "ready": group.ready}
