"""The stages of a frame's life and the time each took."""

from collections.abc import Iterable

STAGES = ("decode", "preprocess", "queue", "infer", "post", "encode")


class StageTimes(dict[str, tuple[float, float]]):
    """Begin and end of each stage by ``time.perf_counter``, in seconds.

    The stages of one frame follow each other, so one thread at a time writes.
    """

    def seconds(self) -> dict[str, float]:
        """Return how long each stage took, and the ``total`` where it is known, in the order of a frame's life."""
        return {stage: self[stage][1] - self[stage][0] for stage in (*STAGES, "total") if stage in self}

    def milliseconds(self) -> dict[str, float]:
        """Return the times in milliseconds, to the microsecond."""
        return {stage: round(seconds * 1e3, 3) for stage, seconds in self.seconds().items()}

    def server_timing(self) -> str:
        """Format as a ``Server-Timing`` header (W3C Server Timing)."""
        return ", ".join([f"{stage};dur={ms:.3f}" for stage, ms in self.milliseconds().items()])

    @classmethod
    def longest(cls, several: Iterable["StageTimes"]) -> "StageTimes":
        """Return the longest time of each stage, for a request of several frames."""
        longest = cls()
        for times in several:
            for stage, (began, ended) in times.items():
                if stage not in longest or ended - began > longest[stage][1] - longest[stage][0]:
                    longest[stage] = began, ended
        return longest
