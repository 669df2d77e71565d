"""The stages of a frame's life and the time each took."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

STAGES = ("decode", "preprocess", "queue", "infer", "post", "encode")


class StageTimes(dict[str, float]):
    """Seconds by stage; the stages of one frame follow each other, so one thread at a time writes."""

    def __init__(self) -> None:
        super().__init__()
        self.made = time.perf_counter()
        self.began: dict[str, float] = {}  # when each stage did, by the same clock

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Record how long the block took."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.record(stage, start, time.perf_counter() - start)

    def record(self, stage: str, began: float, seconds: float) -> None:
        """Record when a stage began (``time.perf_counter``) and how long it took."""
        self.began[stage], self[stage] = began, seconds

    def finish(self) -> None:
        """Record the time since this object was made as ``total``."""
        self["total"] = time.perf_counter() - self.made

    @classmethod
    def longest(cls, several: Iterable["StageTimes"]) -> "StageTimes":
        """Return the longest time of each stage, for a request of several frames."""
        longest = cls()
        for times in several:
            for stage, seconds in times.items():
                longest[stage] = max(seconds, longest.get(stage, 0.0))
        return longest

    def milliseconds(self) -> dict[str, float]:
        """Return the times in milliseconds, to the microsecond, in the order of a frame's life."""
        return {stage: round(self[stage] * 1e3, 3) for stage in (*STAGES, "total") if stage in self}

    def server_timing(self) -> str:
        """Format as a ``Server-Timing`` header (W3C Server Timing)."""
        return ", ".join(f"{stage};dur={ms:.3f}" for stage, ms in self.milliseconds().items())
