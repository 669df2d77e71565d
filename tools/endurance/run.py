"""The run: measures the capacity, then lives through kills and restarts under load."""

import asyncio
import contextlib
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx

from tools.endurance import events, samples
from tools.endurance.book import Tally
from tools.endurance.clients import load
from tools.endurance.judgement import at_rest, judge, left_open
from tools.endurance.life import Life, living
from tools.endurance.renewal import Site
from tools.endurance.report import Ended, Report

LIMITS: tuple[object, ...] = ("--request-timeout-ms", 60_000, "--drain-seconds", 60, "--max-streams", 16)
PLAN = ((1 / 6, signal.SIGTERM), (1 / 6, signal.SIGKILL), (2 / 3, None))  # parts of the time, and how each life ends
RENEWAL_SECONDS = FAILURE_SECONDS = SAY_SECONDS = 60.0
HANG_SECONDS = 240.0
SAMPLE_SECONDS = 5.0
LOOK_SECONDS = 0.2


@dataclass
class Run:
    """One run, of which a report can be made at any time."""

    site: Site
    arguments: list[object]
    seconds: float
    interrupted: asyncio.Event
    report: Report = field(default_factory=Report)
    life: Life | None = None

    async def all(self) -> None:
        """Measure, then load; end early, but in order, once interrupted."""
        await self._measure()
        if self.interrupted.is_set():
            return
        stopped = asyncio.Event()
        began = time.monotonic()
        loading = load.Load(self.current, load.LOAD * self.report.capacity, self.tally, stopped, random.Random(1))
        async with asyncio.TaskGroup() as tasks, _beside(tasks, *self._beside()):
            sending = tasks.create_task(loading.run())
            for part, ending in PLAN:
                until = time.monotonic() + part * self.seconds
                while time.monotonic() < until and not stopped.is_set():  # a life that ends by itself is followed
                    await self._live(until, ending, stopped)
                    self.report.seconds = time.monotonic() - began
            stopped.set()
            await sending

    @property
    def period(self) -> float:
        """Seconds from one renewal to the next."""
        return min(RENEWAL_SECONDS, self.seconds / 6)

    @property
    def tally(self) -> Tally:
        return self.report.tally

    def current(self) -> Life | None:
        return self.life

    def _beside(self) -> list:
        return [
            samples.watch(self.current, self.report.samples, SAMPLE_SECONDS),
            events.renew_regularly(self.current, self.tally, self.period),
            events.fault_regularly(self.current, self.tally, "fails", min(FAILURE_SECONDS, self.seconds / 6)),
            events.fault_regularly(self.current, self.tally, "hangs", min(HANG_SECONDS, self.seconds * 0.45)),
            self._say(),
        ]

    async def _measure(self) -> None:
        """Measure the capacity beside a renewal, which costs some of it, once both weights are in the cache."""
        async with living(0, self.site, [*LIMITS, *self.arguments]) as life:
            await events.renew(life, self.tally)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(events.renew(life, self.tally))
                self.report.capacity = await load.capacity(life, self.tally, self.period)
            _tell(f"the capacity is {self.report.capacity:.1f} frames a second")
            await self._end_at_rest(life)
        self._judge(life)

    async def _live(self, until: float, ending: signal.Signals | None, stopped: asyncio.Event) -> None:
        """Load one process; at a time, end it: with a signal in the middle of everything, or at rest without one."""
        async with living(len(self.report.lives), self.site, [*LIMITS, *self.arguments]) as life:
            self.life = life
            await self._wait(life, until)
            if life.server.process.poll() is not None:
                await life.exit()
            elif self.interrupted.is_set() or ending is None:
                stopped.set()
                await self._end_at_rest(life)
            else:
                with contextlib.suppress(httpx.HTTPError):
                    await life.look()
                life.send_signal(ending)
                await life.exit()
            self.life = None
        self._judge(life)

    async def _wait(self, life: Life, until: float) -> None:
        """Wait until the time is over, the run is interrupted, or the process ends by itself."""
        while time.monotonic() < until and life.server.process.poll() is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self.interrupted.wait()
                    return

    async def _end_at_rest(self, life: Life) -> None:
        await at_rest(life)
        await left_open(life)
        life.send_signal(signal.SIGTERM)
        await life.exit()

    def _judge(self, life: Life) -> None:
        uncertain = judge(life)
        self.report.lives.append(Ended.of(life, time.monotonic() - life.began, uncertain))

    async def _say(self) -> None:
        began = time.monotonic()
        while True:
            await asyncio.sleep(SAY_SECONDS)
            broken = sum(len(life.broken) for life in self.report.lives) + len(self.life.broken if self.life else ())
            ends = self.tally.total(lambda kind, outcome: outcome == "answered")
            now = self.report.samples[-1] if self.report.samples else None
            held = f", {now.resident / 2**20:.0f} MiB, queue {now.queue}" if now else ""
            minutes = (time.monotonic() - began) / 60
            _tell(f"{minutes:.0f} of {self.seconds / 60:.0f} minutes: {ends} answered, {broken} promises broken{held}")


@contextlib.asynccontextmanager
async def _beside(tasks: asyncio.TaskGroup, *works) -> AsyncIterator[None]:
    """Run works beside the block, and cancel them at its end."""
    running = [tasks.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in running:
            task.cancel()


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
