"""How much bulk may go to the device now, so that no live frame has to wait for it.

A call on the device is not interrupted. So while somebody streams, bulk starts only if it ends before the next live
frame is due, judged by the frames that came and by what a frame has cost. In any case nobody waits long for bulk, and
bulk does not wait for ever.
"""

import math

BULK_SECONDS = 0.25  # on the device at once: as long as an urgent frame may have to wait for it
GONE_SECONDS = 1.0  # without a live frame, waiting or at work, until the stream counts as over or paused...
GONE_GAPS = 2  # ... or twice its usual gap, where that is longer
STARVED_SECONDS = 60.0  # after which one frame of bulk goes anyway; one late frame in so many is below a stream's p99
WEIGHT = 1 / 8  # of a new observation in a running mean
DEVIATIONS = 2  # that a frame may come before its time


class ArchivePolicy:
    """Watches live frames and calls on the device; times are loop time in seconds."""

    def __init__(self) -> None:
        self.frame_seconds = 0.0  # that a frame takes on the device; 0 while unknown
        self._live_at = -math.inf  # when the last live frame came
        self._seen_at = -math.inf  # when one came, or left the device
        self._gap = 0.0  # between live frames, mean
        self._deviation = 0.0  # from that mean
        self._started_at = -math.inf  # the last bulk, or the stream that it has to wait for

    def live(self, now: float) -> None:
        """Note that a live frame came."""
        gap, over = now - self._live_at, self._is_over(now)
        self._live_at = self._seen_at = now
        if over:  # another stream begins
            self._started_at = now
            self._gap = self._deviation = 0.0  # nothing is known: the next one may come at once
        elif not self._gap:
            self._gap, self._deviation = gap, gap / 2
        else:
            self._deviation += (abs(gap - self._gap) - self._deviation) * WEIGHT
            self._gap += (gap - self._gap) * WEIGHT

    def live_left(self, now: float) -> None:
        """Note that a live frame left the device: only now can the next one come, where they fill it."""
        self._seen_at = now

    def started(self, now: float) -> None:
        """Note that bulk goes to the device."""
        self._started_at = now

    def size(self, now: float) -> int:
        """Return how many frames of bulk may go to the device now."""
        room = min(self._free_seconds(now), BULK_SECONDS)
        fitting = int(room / self.frame_seconds) if self.frame_seconds else 0
        return fitting or int(now >= self._free_again_at())

    def allowed_at(self, now: float) -> float:
        """Return when bulk may go to the device if no more live frames come."""
        return now if self.size(now) else self._free_again_at()

    def _free_seconds(self, now: float) -> float:
        if self._is_over(now):
            return math.inf
        return max(0.0, self._live_at + self._gap - DEVIATIONS * self._deviation - now)

    def _free_again_at(self) -> float:
        """One frame goes once nobody streams any more, or bulk has starved for long."""
        return min(self._over_at(), self._started_at + STARVED_SECONDS)

    def _is_over(self, now: float) -> bool:
        return now > self._over_at()

    def _over_at(self) -> float:
        return self._seen_at + max(GONE_SECONDS, GONE_GAPS * self._gap)
