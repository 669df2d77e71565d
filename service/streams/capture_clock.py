"""A client's clock on the server's: when a frame was captured whose sender tells another time.

Nobody can tell the clocks' difference from the network's delay by one-way messages alone. The smallest
(receive - capture) that a stream has shown is the difference plus the least delay of the network, so an age reckoned
with it leaves out exactly the constant part of that delay.
"""

import math

JUMP_SECONDS = 5.0  # (receive - capture) does not grow by so much from one frame to the next unless a clock stood still
MEMORY_SECONDS = 60.0  # the smallest is forgotten after one to two of these: quartz drifts by some 3 ms a minute


class ClockMapping:
    """Maps the capture times of one stream to the clock on which its frames are received; both in seconds."""

    def __init__(self) -> None:
        self._last_capture = -math.inf
        self._last_offset = math.inf
        self._older = self._recent = math.inf  # smallest offsets of the last period and of this one
        self._since = 0.0  # when this period began, by the receiver's clock

    def captured(self, capture: float, received: float) -> float:
        """Return when, on the receiver's clock, a frame was captured; frames come in the order of their capture."""
        offset = received - capture
        if capture < self._last_capture or offset > self._last_offset + JUMP_SECONDS:
            self._older = self._recent = math.inf  # the clock was set, or stood still while its machine slept
        self._last_capture, self._last_offset = capture, offset
        if received - self._since > MEMORY_SECONDS:
            self._older, self._recent, self._since = self._recent, math.inf, received
        self._recent = min(self._recent, offset)
        return capture + min(self._older, self._recent)
