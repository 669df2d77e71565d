"""What one stream counts, whose frames all end with one outcome."""

import time

from service.errors import ServiceError
from service.observability.metrics import OUTCOMES, Metrics


class StreamMetrics:
    """Metrics of one stream; once it has ended, received = answered + dropped + failed + abandoned."""

    def __init__(self, metrics: Metrics, slot: str) -> None:
        self._metrics = metrics
        self._received = metrics.frames_received.labels(slot)
        self._reused = metrics.frames_reused.labels(slot)
        self._age = metrics.frame_age.labels(slot)
        self._gap = metrics.frame_gap.labels(slot)
        self._outcomes = {name: metrics.frames.labels(slot, name) for name in OUTCOMES}
        self._open = 0  # received, without an outcome yet
        self._last_mask: float | None = None  # monotonic clock, seconds

    def received(self) -> None:
        """Count a frame that the client has sent."""
        self._open += 1
        self._received.inc()

    def answered(self, age: float | None, *, reused: bool = False) -> None:
        """Count a mask that was sent.

        Args:
            age: seconds from the capture of its frame; None if the video is not live.
            reused: it was made without inference.

        """
        now = time.monotonic()
        if age is not None:
            self._age.observe(age)
        if self._last_mask is not None:
            self._gap.observe(now - self._last_mask)
        self._last_mask = now
        self.count("answered")
        self._reused.inc(reused)

    def count(self, outcome: str) -> None:
        """Count the outcome of a frame, one of ``OUTCOMES``."""
        self._open -= 1
        self._outcomes[outcome].inc()

    def failed(self, error: ServiceError) -> None:
        """Count a frame that failed, and its cause."""
        self.count("failed")
        self._metrics.reject(error)

    def close(self, outcome: str) -> None:
        """Count the same outcome for all frames that are open when the stream ends."""
        self._outcomes[outcome].inc(self._open)
        self._open = 0
