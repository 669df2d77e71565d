"""The load: what is sent, how often, and how much of it may be open at once."""

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tools.endurance.book import Tally
from tools.endurance.clients import calls, nuisances
from tools.endurance.clients.calls import Kind
from tools.endurance.clients.streams import Session
from tools.endurance.life import Life

LOAD = 0.9  # of the capacity
CALLERS = 24  # of the closed loop that measures the capacity: they fill the queue and a batch
OPEN_SECONDS = 10.0  # of the device, for the requests that may be open at once; clients back off from more
LEAST_OPEN = 8
SHARES = {  # of the load, by the frames that the device computes
    "REST": 0.18, "gRPC": 0.18, "inference protocol over REST": 0.05, "inference protocol over gRPC": 0.05,
    "DICOM object": 0.04, "DICOM study": 0.05, "zip": 0.05, "latest": 0.16, "every": 0.16,
}  # fmt: skip
NUISANCES = 1 - sum(SHARES.values())  # of clients that leave or send slowly
ONE_AT_A_TIME = ("DICOM study", "zip")  # the service takes MAX_ARCHIVES at once
STREAMS = tuple(itertools.product(("gRPC", "WebSocket"), ("latest", "every"), range(2)))  # eight
STREAM_SECONDS = 40.0
LEAVES = 0.25  # of the streams
BURST_SECONDS = 8.0  # between bursts of a live stream; archives are computed while no live stream sends
AHEAD = 1.5  # times the capacity, at which a live stream sends in a burst, so that some frames are replaced
RETRY_SECONDS = 1.0  # of a stream, while no process takes it

Current = Callable[[], Life | None]


@dataclass
class Load:
    """Sends everything at a rate, in frames per second of the device, until it is stopped."""

    current: Current  # the life that takes new work
    rate: float
    tally: Tally
    stopped: asyncio.Event
    random: random.Random
    open: int = 0

    async def run(self) -> None:
        """Send until stopped; requests that are open then are waited for by their life."""
        async with asyncio.TaskGroup() as tasks:
            for kind in calls.kinds().values():
                tasks.create_task(self._requests(kind, self.rate * SHARES[kind.name] / kind.frames))
            for kind_of_line, policy, _ in STREAMS:
                tasks.create_task(self._streams(kind_of_line, policy))
            tasks.create_task(self._nuisances())

    async def _requests(self, kind: Kind, rate: float) -> None:
        """Send requests of a kind at random times, as many clients do that know nothing of each other."""
        busy = False

        async def once(life: Life) -> None:
            nonlocal busy
            busy = True
            self.open += 1
            try:
                await calls.sent(kind, life, self.tally)
            finally:
                self.open -= 1
                busy = False

        due = time.monotonic()
        while not self.stopped.is_set():
            due += self.random.expovariate(rate)
            await self._pause(due - time.monotonic())
            if not (life := self._life()):
                self.tally.add(kind.name, "due while no process ran")
            elif self.open >= max(LEAST_OPEN, self.rate * OPEN_SECONDS) or (busy and kind.name in ONE_AT_A_TIME):
                self.tally.add(kind.name, "held back by the client")
            else:
                life.start(once(life))

    async def _streams(self, kind: str, policy: str) -> None:
        """Keep one stream open, a new one after each."""
        while not self.stopped.is_set():
            if not (life := self._life()):
                await self._pause(RETRY_SECONDS)
                continue
            session = Session(life, kind, policy)
            await life.start(self._session(session)).wait()
            await self._pause(0.0 if session.opened and not life.ending else RETRY_SECONDS)

    async def _session(self, session: Session) -> None:
        pace = self._bursts() if session.policy == "latest" else self._evenly()
        await session.run(pace, STREAM_SECONDS, leaves=self.random.random() < LEAVES)
        session.settle(self.tally)

    def _evenly(self) -> Callable[[], float]:
        mean = len(STREAMS) / 2 / (self.rate * SHARES["every"])
        return lambda: mean

    def _bursts(self) -> Callable[[], float]:
        """Return the pauses of a stream that sends some frames at once, and then pauses, as an examination does."""
        computed = self.rate * SHARES["latest"] * BURST_SECONDS / (len(STREAMS) / 2)  # frames of each burst
        frames = max(3, round(AHEAD * computed))
        number = itertools.count(1)
        quick = LOAD / self.rate / AHEAD
        return lambda: quick if next(number) % frames else BURST_SECONDS * self.random.uniform(0.7, 1.3)

    async def _nuisances(self) -> None:
        rate = self.rate * NUISANCES
        kinds: list[Callable[[Life, Tally], Awaitable[None]]] = [
            *nuisances.VANISHING,
            lambda life, tally: calls.sent(nuisances.TRICKLING, life, tally),
            lambda life, tally: calls.sent(nuisances.TOO_SLOW, life, tally),
        ]
        for nuisance in itertools.cycle(kinds):
            await self._pause(self.random.expovariate(rate))
            if self.stopped.is_set():
                return
            if life := self._life():
                life.start(nuisance(life, self.tally))  # type: ignore[arg-type]

    def _life(self) -> Life | None:
        life = self.current()
        return None if life is None or life.over.is_set() else life

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self.stopped.wait()
        except TimeoutError:
            return


async def capacity(life: Life, tally: Tally, seconds: float) -> float:
    """Return the requests per second of callers over REST and gRPC that wait for each answer, over some seconds."""
    until, answered = time.monotonic() + seconds, Tally()
    made = calls.kinds()

    async def caller(kind: Kind) -> None:
        while time.monotonic() < until:
            await calls.sent(kind, life, answered)

    began = time.monotonic()
    await asyncio.gather(*(caller(made[name]) for _, name in zip(range(CALLERS), itertools.cycle(("REST", "gRPC")))))
    took = time.monotonic() - began
    for (_, outcome), number in answered.outcomes.items():
        tally.add("callers that measure the capacity", outcome, number)
    return answered.total(lambda kind, outcome: outcome == "answered") / took
