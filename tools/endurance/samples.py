"""Samples of the process's resources, and whether they stay flat."""

import asyncio
import contextlib
import csv
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import httpx

from tools.endurance.life import Life
from tools.endurance.resources import held

GROWTH = 1.02  # of resident memory, from the second sixth of a life to the last
JUDGED_SECONDS = 900.0  # of a life: in the first minutes pools of threads and of memory are still filled


@dataclass(frozen=True)
class Sample:
    """What the process holds at one moment."""

    seconds: float  # from the start of the run
    life: int
    resident: int  # bytes
    threads: int
    sockets: int
    files: int  # open, other than sockets
    temporary: int  # files in its folder for temporary files
    queue: int
    in_flight: int
    fps: float


async def watch(current: Callable[[], Life | None], samples: list[Sample], period: float) -> None:
    """Take a sample every ``period`` seconds until cancelled."""
    began = time.monotonic()
    while True:
        await asyncio.sleep(period)
        if (life := current()) is None or life.over.is_set() or life.ending:
            continue
        await life.start(_sample(life, samples, began)).wait()


async def _sample(life: Life, samples: list[Sample], began: float) -> None:
    with contextlib.suppress(httpx.HTTPError):
        gauges = (await life.look()).gauges
        now = held(life.server.process.pid)
        loaded = (int(gauges["pranet_queue_depth"]), int(gauges["pranet_in_flight"]), gauges["pranet_fps"])
        temporary, seconds = life.site.temporary_files(), round(time.monotonic() - began, 1)
        held_now = (now.resident, now.threads, now.sockets, len(now.files))
        samples.append(Sample(seconds, life.number, *held_now, temporary, *loaded))


def sixths(samples: Sequence[Sample]) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """Return the samples of the second and of the last sixth of the longest life."""
    lives = {each.life for each in samples}
    longest = max(([each for each in samples if each.life == life] for life in lives), key=len, default=[])
    size = len(longest) // 6
    return longest[size : 2 * size], longest[len(longest) - size :]


def typical(samples: Sequence[Sample], name: str) -> float:
    """Return the median, which a network that is loaded beside the old one for a moment does not move."""
    return statistics.median(getattr(each, name) for each in samples)


def growing(samples: Sequence[Sample]) -> list[str]:
    """Return the broken promises; none of a life that is too short to judge."""
    second, last = sixths(samples)
    if not second or last[-1].seconds - second[0].seconds < JUDGED_SECONDS * 5 / 6:
        return []
    limits = {"resident": GROWTH, "threads": 1.0, "files": 1.0, "temporary": 1.0}
    return [
        f"{name} grows from {typical(second, name):.0f} in the second sixth to {typical(last, name):.0f} in the last"
        for name, most in limits.items()
        if typical(last, name) > most * typical(second, name)
    ]


def write(samples: Sequence[Sample], file: Path) -> None:
    with file.open("w", newline="") as opened:
        table = csv.DictWriter(opened, [each.name for each in fields(Sample)])
        table.writeheader()
        table.writerows(asdict(each) for each in samples)
