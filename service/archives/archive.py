"""Segmentation of archives. It has the lowest priority, and the number and memory of archives are limited."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from service.archives.members import Member
from service.errors import DeadlineExceeded, InternalError, QueueFull, ServiceError
from service.frames.frame import Frame, Options, Segmentation
from service.frames.segmenter import Segmenter
from service.processes.memory import Places
from service.readiness import Phase, Readiness
from service.tasks import in_order

ARCHIVE_TIMEOUT_SECONDS = 86_400.0  # an archive may wait for live streams to end, unless its client sets a timeout

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answered:
    """The result or error of one picture."""

    member: Member
    outcome: Segmentation | ServiceError


class Archives:
    """Segments archives with one segmenter, ``at_once`` pictures of all archives at a time."""

    def __init__(
        self,
        segmenter: Segmenter,
        readiness: Readiness,
        *,
        places: Places,
        at_once: int,
        check_threads: Callable[[], None],
    ) -> None:
        self._segmenter = segmenter
        self._readiness = readiness
        self._archives = places
        self._at_once = at_once
        self.check_threads = check_threads  # raises ``NotReady`` if pictures hold all threads
        self._pictures = asyncio.Semaphore(at_once)  # of all archives; leaves room in the queue for others

    @property
    def working(self) -> int:
        """How many archives this process receives or segments."""
        return self._archives.taken

    @contextmanager
    def place(self, *, may_be_single: bool = False) -> Iterator[None]:
        """Hold one of the places for archives, from before the archive is received until it is answered.

        One that may turn out to be a single picture, which needs no thread of archives, has to ``check_threads`` later.

        Raises:
            NotReady: pictures of other archives hold all threads.
            QueueFull: no place is free.

        """
        if not may_be_single:
            self.check_threads()
        if (number := self._archives.take()) is None:
            raise QueueFull(f"{self._archives.count} archives are in progress (MAX_ARCHIVES); retry later")
        try:
            yield
        finally:
            self._archives.give_back(number)

    def answer_all(
        self,
        members: Sequence[Member],
        options: Options,
        deadline: float,
        send: Callable[[Answered], Awaitable[None]],
    ) -> Coroutine[None, None, None]:
        """Send one answer for each member, in order; a bad picture fails alone, and cancelling drops all work.

        During a graceful shutdown, members that have not started get ``Draining``, so every member has an answer.
        """

        async def work(member: Member) -> Answered:
            return Answered(member, await self._outcome(member, options, deadline))

        return in_order(members, work, send, at_once=self._at_once)

    async def _outcome(self, member: Member, options: Options, deadline: float) -> Segmentation | ServiceError:
        try:
            await self._turn(deadline)
            try:
                if self._readiness.phase is Phase.DRAINING:
                    self._readiness.check()  # says so
                return await self._segmenter.segment(
                    Frame(source=member.read, options=options, deadline=deadline, waits_for_place=True)
                )
            finally:
                self._pictures.release()
        except ServiceError as error:
            return error
        except Exception:
            log.exception("a picture of an archive failed")
            return InternalError("picture")

    async def _turn(self, deadline: float) -> None:
        """Wait until one more picture of an archive may be segmented."""
        if deadline <= asyncio.get_running_loop().time():
            raise DeadlineExceeded  # without a turn of the loop, in which it would be decoded
        try:
            async with asyncio.timeout_at(deadline):
                await self._pictures.acquire()
        except TimeoutError:
            raise DeadlineExceeded from None
