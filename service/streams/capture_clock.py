"""Maps capture times, given by the client's clock, to the server's clock.

One-way messages cannot tell the offset between two clocks from the network delay. The smallest difference
(receive - capture) seen in a stream is the offset plus the smallest network delay. Ages computed with it therefore
leave out the constant part of the delay, and only that.
"""

import math

JUMP_SECONDS = 5.0  # if (receive - capture) grows by more between two frames, the client's clock was stopped or set
MEMORY_SECONDS = 60.0  # the minimum is taken over the last one to two of these: clocks drift by some 3 ms a minute


class ClockMapping:
    """Maps the capture times of one stream to the receiver's clock; both in seconds."""

    def __init__(self) -> None:
        self._last_capture = -math.inf
        self._last_offset = math.inf
        self._older = self._recent = math.inf  # smallest offsets of the previous and of the current period
        self._since = 0.0  # start of the current period, by the receiver's clock

    def captured(self, capture: float, received: float) -> float:
        """Return a frame's capture time on the receiver's clock; call it in the order of the frames."""
        offset = received - capture
        if capture < self._last_capture or offset > self._last_offset + JUMP_SECONDS:
            self._older = self._recent = math.inf  # the clock was set, or stopped while the client's machine slept
        self._last_capture, self._last_offset = capture, offset
        if received - self._since > MEMORY_SECONDS:
            is_recent = received - self._since <= 2 * MEMORY_SECONDS  # else no frame came for a while
            self._older, self._recent, self._since = self._recent if is_recent else math.inf, math.inf, received
        self._recent = min(self._recent, offset)
        return capture + min(self._older, self._recent)
