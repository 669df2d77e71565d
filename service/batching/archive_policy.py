"""Decides how many frames of archives may go to the device now without delaying live video.

A batch on the device cannot be interrupted. While a live stream is open, archive frames therefore start only if they
end before the next live frame is due. The estimate uses the intervals between live frames, and the time of a frame on
the device. A batch of archive frames is always short, and archives are never starved completely.
"""

import math

BATCH_SECONDS = 0.25  # longest archive batch, and so the longest wait of another frame for one
GONE_SECONDS = 1.0  # without a live frame, queued or on the device, until live video counts as over or paused...
GONE_GAPS = 2  # ... or twice the usual interval, if that is longer
STARVED_SECONDS = 60.0  # after this wait, one archive frame runs anyway; so rare a delay is beyond a stream's p99
WEIGHT = 1 / 8  # of a new observation in a moving average
DEVIATIONS = 2  # mean deviations by which the next live frame may be early


class ArchivePolicy:
    """Observes live frames and the device, and limits archive batches; times are loop time in seconds."""

    def __init__(self) -> None:
        self.frame_seconds = 0.0  # device time of one frame; 0 while unknown
        self._live_at = -math.inf  # arrival of the last live frame
        self._seen_at = -math.inf  # when a live frame last arrived or left the device
        self._gap = 0.0  # mean interval between live frames
        self._deviation = 0.0  # mean deviation from that interval
        self._ran_at = -math.inf  # start of the last archive batch
        self._held_at = -math.inf  # the same, or the start of the stream that delays archives, if that is later

    def live(self, now: float) -> None:
        """Record the arrival of a live frame."""
        gap, over = now - self._live_at, self._is_over(now)
        self._live_at = self._seen_at = now
        if over:  # a new stream begins
            self._held_at = now
            self._gap = self._deviation = 0.0  # unknown: the next frame may arrive at any time
        elif not self._gap:
            self._gap, self._deviation = gap, gap / 2
        else:
            self._deviation += (abs(gap - self._gap) - self._deviation) * WEIGHT
            self._gap += (gap - self._gap) * WEIGHT

    def live_left(self, now: float) -> None:
        """Record that a live frame left the device; a stream that saturates the device sends its next one only now."""
        self._seen_at = now

    def started(self, now: float) -> None:
        """Record the start of an archive batch."""
        self._ran_at = self._held_at = now

    def starved(self, now: float, arrived: float) -> bool:
        """Tell whether a frame has waited ``STARVED_SECONDS`` since it arrived, and none has run for as long."""
        return now >= max(self._ran_at, arrived) + STARVED_SECONDS

    def size(self, now: float) -> int:
        """Return how many archive frames may go to the device now."""
        room = min(self._free_seconds(now), BATCH_SECONDS)
        fitting = int(room / self.frame_seconds) if self.frame_seconds else 0
        return fitting or int(now >= self._free_again_at())

    def allowed_at(self, now: float) -> float:
        """Return when archive frames may go to the device if no more live frames arrive."""
        return now if self.size(now) else self._free_again_at()

    def _free_seconds(self, now: float) -> float:
        if self._is_over(now):
            return math.inf
        return max(0.0, self._live_at + self._gap - DEVIATIONS * self._deviation - now)

    def _free_again_at(self) -> float:
        """Return when one frame may run in any case: live video is over, or archives have been starved."""
        return min(self._over_at(), self._held_at + STARVED_SECONDS)

    def _is_over(self, now: float) -> bool:
        return now > self._over_at()

    def _over_at(self) -> float:
        return self._seen_at + max(GONE_SECONDS, GONE_GAPS * self._gap)
