"""The stages of a frame's life and the time each took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

STAGES = ("decode", "preprocess", "queue", "infer", "post", "encode")


class StageTimes(dict[str, float]):
    """Seconds by stage; the stages of one frame follow each other, so one thread at a time writes."""

    def __init__(self) -> None:
        super().__init__()
        self._began = time.perf_counter()

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Record how long the block took."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self[stage] = time.perf_counter() - start

    def finish(self) -> None:
        """Record the time since this object was made as ``total``."""
        self["total"] = time.perf_counter() - self._began

    def milliseconds(self) -> dict[str, float]:
        """Return the times in milliseconds, to the microsecond, in the order of a frame's life."""
        return {stage: round(self[stage] * 1e3, 3) for stage in (*STAGES, "total") if stage in self}

    def server_timing(self) -> str:
        """Format as a ``Server-Timing`` header (W3C Server Timing)."""
        return ", ".join(f"{stage};dur={ms:.3f}" for stage, ms in self.milliseconds().items())
