"""The processing stages of a frame, and the time that each took."""

from collections.abc import Iterable

STAGES = ("decode", "preprocess", "queue", "infer", "maps", "post", "encode")  # maps: only if they are asked for


class StageTimes(dict[str, tuple[float, float]]):
    """Begin and end of each stage, ``time.perf_counter`` seconds.

    It needs no lock: the stages of a frame run one after another, so only one thread at a time writes.
    """

    def seconds(self) -> dict[str, float]:
        """Return the duration of each stage in order, and the ``total`` once it is known."""
        return {stage: self[stage][1] - self[stage][0] for stage in (*STAGES, "total") if stage in self}

    def milliseconds(self) -> dict[str, float]:
        """Return the durations in milliseconds, rounded to microseconds."""
        return {stage: round(seconds * 1e3, 3) for stage, seconds in self.seconds().items()}

    def server_timing(self) -> str:
        """Return the durations as the value of a ``Server-Timing`` header (W3C Server Timing)."""
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
