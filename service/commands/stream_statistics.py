"""Statistics of a stream: outcomes, ages and frame rate, on one line."""

import time
from collections import Counter, deque

from pranet_client.connection import Reply
from service.observability.metrics import FrameRate

DROPS = ("stale", "deadline", "overload", "lost")
AGES = 20_000  # percentiles are of this many newest ages


class StreamStatistics:
    """Counts replies by outcome; ages and frame rate are of the frames that were answered with a mask."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.in_order = True
        self._ages: deque[float] = deque(maxlen=AGES)  # seconds
        self._rate = FrameRate()
        self._reused = 0
        self._began = self._last = time.monotonic()
        self._last_id = -1

    def count(self, reply: Reply) -> None:
        """Count one reply."""
        if not self.outcomes:
            self._began = reply.frame.captured
        self.outcomes[reply.outcome] += 1
        self.in_order &= reply.frame.frame_id == self._last_id + 1
        self._last_id = reply.frame.frame_id
        if reply.outcome == "answered":
            self._last = time.monotonic()
            self._ages.append(reply.age_seconds)
            self._rate.append(self._last)
            self._reused += reply.response is not None and reply.response.reused

    @property
    def received(self) -> int:
        """Return the number of replies of all outcomes."""
        return self.outcomes.total()

    def age_ms(self, percent: float) -> float:
        """Return a percentile of the age, milliseconds; 0 before the first mask."""
        ordered = sorted(self._ages)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1e3 if ordered else 0.0

    @property
    def fps(self) -> float:
        """Return masks per second, from the first frame to the last mask."""
        seconds = self._last - self._began
        return self.outcomes["answered"] / seconds if seconds > 0 else 0.0

    def line(self) -> str:
        """Return the current statistics on one line, with the frame rate of the last moments."""
        return f"{self._rate.per_second(self._began):6.1f} fps  {self._figures()}"

    def summary(self) -> str:
        """Return the totals of the whole stream on one line."""
        order = "kept" if self.in_order else "BROKEN"
        return f"{self.fps:.2f} fps  {self._figures()}  order {order}"

    def _figures(self) -> str:
        others = sorted(self.outcomes.keys() - {*DROPS, "answered", "failed"})  # of a newer service
        drops = "  ".join(f"{name} {self.outcomes[name]}" for name in (*DROPS, *others))
        reused = f" ({self._reused} reused)" if self._reused else ""
        return (
            f"age p50 {self.age_ms(50):.0f} ms  p99 {self.age_ms(99):.0f} ms  frames {self.received}  "
            f"answered {self.outcomes['answered']}{reused}  {drops}  failed {self.outcomes['failed']}"
        )
