"""How long a call on the device may take before it counts as hung: the device's own pace decides."""

HANG_SECONDS = 10.0  # a call may always take so long; the largest batch takes 3 s on two slow cores
MOST_HANG_SECONDS = 60.0  # the most that a slow device gets: what is given up is computed again
HANG_FACTOR = 8.0  # a call hangs when it takes so many times what its frames took of late
PACE_MEMORY = 0.9  # of the slowest pace, kept from one call to the next


class Patience:
    """Learns from each call that comes back, in time or late."""

    def __init__(self, least_seconds: float = HANG_SECONDS) -> None:
        self._least_seconds = least_seconds
        self._frame_seconds = 0.0  # the slowest pace of late

    def learn(self, frames: int, seconds: float) -> None:
        """Note how long a call with so many frames took."""
        self._frame_seconds = max(PACE_MEMORY * self._frame_seconds, seconds / frames)

    def seconds(self, frames: int) -> float:
        """Return how long a call with so many frames may take."""
        return max(self._least_seconds, min(HANG_FACTOR * self._frame_seconds * frames, MOST_HANG_SECONDS))
