"""Maps capture times, given by the client's clock, to the server's clock.

One-way messages cannot tell the offset between two clocks from the network delay. The smallest difference
(receive - capture) seen in a stream is the offset plus the smallest network delay. Ages computed with it therefore
leave out the constant part of the delay, and only that.

If the difference grows at once, either the network held up frames, or the client's clock stood still, as while its
machine slept. After the first, the difference falls back, and the frames were old; after the second, it stays.
"""

import math

JUMP_SECONDS = 5.0  # by which (receive - capture) must grow between two frames for the clock to have stood still
STAYS_SECONDS = 3.0  # for how long it must then fall no further; until then, the frames count as held up
LEAST_FALL_SECONDS = 0.05  # more than the jitter; a link hardly faster than the video drains as slowly
MEMORY_SECONDS = 60.0  # the minimum is taken over the last one to two of these: clocks drift by some 3 ms a minute


class ClockMapping:
    """Maps the capture times of one stream to the receiver's clock; both in seconds."""

    def __init__(self) -> None:
        self._last_capture = -math.inf
        self._last_offset = math.inf
        self._older = self._recent = math.inf  # smallest offsets of the previous and of the current period
        self._since = 0.0  # start of the current period, by the receiver's clock
        self._usual = math.inf  # up to this offset, a growth is over; infinite: there was none
        self._lowest, self._lowest_at = math.inf, 0.0  # offset since it grew, and when it was received

    def captured(self, capture: float, received: float) -> float:
        """Return a frame's capture time on the receiver's clock; call it in the order of the frames."""
        offset = received - capture
        if capture < self._last_capture:  # the clock was set
            self._older = self._recent = self._usual = math.inf
        elif self._has_stood_still(offset, received):
            self._older, self._recent, self._usual = math.inf, self._lowest, math.inf
        self._last_capture, self._last_offset = capture, offset
        if received - self._since > MEMORY_SECONDS:
            is_recent = received - self._since <= 2 * MEMORY_SECONDS  # else no frame came for a while
            self._older, self._recent, self._since = self._recent if is_recent else math.inf, math.inf, received
        self._recent = min(self._recent, offset)
        return capture + min(self._older, self._recent)

    def _has_stood_still(self, offset: float, received: float) -> bool:
        """Tell whether the offset has grown and stays; a frame that is not later than usual ends the growth."""
        if offset > self._last_offset + JUMP_SECONDS:
            self._usual = min(self._usual, self._last_offset + JUMP_SECONDS)
            self._lowest = math.inf
        if offset <= self._usual:
            self._usual = math.inf
            return False
        if offset < self._lowest - LEAST_FALL_SECONDS:
            self._lowest, self._lowest_at = offset, received
        return received - self._lowest_at > STAYS_SECONDS
