"""What a guard is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Guard:
    """A line of the service, its replacement, and the test that must then fail."""

    rules_out: str
    file: str
    line: str
    without: str
    test: str
