"""What the clients know of their requests and frames: what the service must have counted, and under which code."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

UNCOUNTED = ""  # the code of what the service has not counted
SETTLED_SECONDS = 1.0  # after its answer, within which the service has counted a request


@dataclass(frozen=True, slots=True)
class Entry:
    """One event that the service counts once, under one of ``codes``; times by ``time.monotonic``, seconds."""

    what: str
    family: str  # of counters: a transport, "rejected", "received", "frames" or "work"; see ``counters``
    codes: frozenset[str]
    began: float
    ended: float

    def seen_by(self, began: float, ended: float) -> "Entry | None":
        """Return the entry as a scrape between two times may have seen it; None if it is later than the scrape."""
        if self.began >= ended:
            return None
        if self.ended + SETTLED_SECONDS > began:
            return dataclasses.replace(self, codes=self.codes | {UNCOUNTED})
        return self


@dataclass
class Book:
    """All entries of one life of the process."""

    entries: list[Entry] = field(default_factory=list)

    def note(self, what: str, began: float, ended: float, **codes: str | Iterable[str]) -> None:
        """Record one event; each keyword is a family (``_`` for ``-``), its value the code or the possible codes."""
        for family, possible in codes.items():
            known = frozenset([possible] if isinstance(possible, str) else possible)
            if known != {UNCOUNTED}:
                self.entries.append(Entry(what, family.replace("_", "-"), known, began, ended))

    def seen_by(self, began: float, ended: float) -> list[Entry]:
        """Return the entries as a scrape between two times may have seen them."""
        seen = (entry.seen_by(began, ended) for entry in self.entries)
        return [entry for entry in seen if entry is not None]


@dataclass
class Tally:
    """How the requests of all lives ended, by kind: for the report."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)  # by kind and outcome
    seconds: dict[str, list[float]] = field(default_factory=dict)  # of the answered ones, by kind

    def add(self, kind: str, outcome: str, number: int = 1, *, seconds: float | None = None) -> None:
        self.outcomes[kind, outcome] += number
        if seconds is not None:
            self.seconds.setdefault(kind, []).append(seconds)

    def total(self, chosen: Callable[[str, str], bool] = lambda kind, outcome: True) -> int:
        return sum(number for (kind, outcome), number in self.outcomes.items() if chosen(kind, outcome))

    def kinds(self) -> list[str]:
        return sorted({kind for kind, _ in self.outcomes})
