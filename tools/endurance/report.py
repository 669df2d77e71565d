"""The report: a Markdown table of everything that was asked and became of it, and the same as JSON."""

import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tools.endurance.book import Tally
from tools.endurance.clients.calls import ARCHIVE_SECONDS, DEADLINE_SECONDS, kinds
from tools.endurance.clients.load import LOAD
from tools.endurance.life import Life
from tools.endurance.samples import Sample, growing, sixths, typical


@dataclass
class Ended:
    """A life that has ended."""

    number: int
    seconds: float
    ending: str
    code: int | None
    uncertain: Counter[str]
    broken: list[str]

    @classmethod
    def of(cls, life: Life, seconds: float, uncertain: Counter[str]) -> "Ended":
        return cls(
            life.number, seconds, life.ending, life.code, uncertain, [f"{life.name}: {each}" for each in life.broken]
        )


@dataclass
class Report:
    """What is known so far."""

    tally: Tally = field(default_factory=Tally)
    samples: list[Sample] = field(default_factory=list)
    lives: list[Ended] = field(default_factory=list)
    capacity: float = 0.0  # requests per second
    seconds: float = 0.0  # under load

    def broken(self) -> list[str]:
        """Return the broken promises of all lives, each once with how often it was broken."""
        lines = Counter(line for life in self.lives for line in life.broken)
        late = [
            f"p99 of {kind} is {p99:.1f} s, over its deadline of {deadline(kind):.0f} s"
            for kind in self.tally.seconds
            if (p99 := percentiles(self.tally.seconds[kind])[1]) > deadline(kind)
        ]
        return (
            [f"{line} ({number} times)" if number > 1 else line for line, number in lines.items()]
            + late
            + growing(self.samples)
        )

    def markdown(self) -> Iterator[str]:
        yield f"| {self.seconds / 60:.0f} minutes at {LOAD:.0%} of {self.capacity:.1f} frames a second | | p50, p99 |"
        yield "|---|---|---|"
        for kind in self.tally.kinds():
            ends = Counter({end: n for (of, end), n in self.tally.outcomes.items() if of == kind})
            text = ", ".join(f"{number:,} {end}" for end, number in ends.most_common())
            times = self.tally.seconds.get(kind)
            took = "{:.1f} s, {:.1f} s".format(*percentiles(times)) if times else ""
            yield f"| {kind} | {text} | {took} |"
        yield from map(_life, self.lives)
        yield from self._resources()

    def _resources(self) -> Iterator[str]:
        second, last = sixths(self.samples)
        if second:
            sizes = "{:.0f} MiB, {:.0f} MiB".format(*(typical(part, "resident") / 2**20 for part in (second, last)))
            yield f"| resident memory, second and last sixth of the longest life | {sizes} | |"
            for name in ("threads", "files", "temporary"):
                pair = "{:.0f}, {:.0f}".format(*(typical(part, name) for part in (second, last)))
                yield f"| {name}, the same | {pair} | |"

    def json(self) -> dict[str, Any]:
        return {
            "seconds": self.seconds,
            "capacity": self.capacity,
            "outcomes": {
                kind: {end: number for (of, end), number in self.tally.outcomes.items() if of == kind}
                for kind in self.tally.kinds()
            },
            "percentiles": {kind: percentiles(times) for kind, times in self.tally.seconds.items()},
            "lives": [vars(life) for life in self.lives],
            "broken": self.broken(),
        }


def percentiles(seconds: list[float]) -> tuple[float, float]:
    """Return p50 and p99."""
    cuts = statistics.quantiles(seconds if len(seconds) > 1 else 2 * seconds, n=100, method="inclusive")
    return cuts[49], cuts[98]


def deadline(kind: str) -> float:
    return {each.name: each.deadline for each in kinds().values()}.get(
        kind, max(DEADLINE_SECONDS, 0)
    ) or ARCHIVE_SECONDS


def _life(life: Ended) -> str:
    unknown = ", ".join(f"{number} {what}" for what, number in life.uncertain.most_common()) or "nothing"
    end = f"{life.ending or 'by itself'}, exit code {life.code}"
    promises = f"{len(life.broken)} broken promises" if life.broken else "all counted"
    return f"| life {life.number}, {life.seconds:.0f} s, ended by {end} | {promises}; uncertain: {unknown} | |"
