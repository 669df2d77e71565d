"""Whether the service's counters can be explained by the clients' books, to the last event.

A client that left, or whose server was killed, cannot know how its request was counted. Its entry has several possible
codes. The books balance if every entry can be given one of its codes so that each counter comes out exactly. Two
conditions of Hall decide this: any set of codes whose counters exceed the known entries has at least as many uncertain
entries that may fill it, and any set of codes has room for the entries that must be in it. By the theorem of Mendelsohn
and Dulmage (1958) an assignment that meets both then exists.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tools.endurance.book import UNCOUNTED, Entry

Counts = Mapping[str, Mapping[str, int]]  # number of events by family and code


def unexplained(entries: Sequence[Entry], counted: Counts) -> list[str]:
    """Return what differs between the books and the counters, one line for each difference."""
    lines = []
    for family, counts in counted.items():
        known: Counter[str] = Counter()
        uncertain: Counter[frozenset[str]] = Counter()
        for entry in entries:
            if entry.family == family:
                if len(entry.codes) == 1:
                    known[next(iter(entry.codes))] += 1
                else:
                    uncertain[entry.codes] += 1
        lines += [f"{family}: {line}" for line in _differences(known, uncertain, counts)]
    return lines


def uncertain(entries: Iterable[Entry]) -> Counter[str]:
    """Count the entries of calls and frames whose code is not known, by what they are."""
    return Counter(entry.what for entry in entries if len(entry.codes) > 1 and entry.family not in ("rejected", "work"))


def _differences(
    known: Mapping[str, int], uncertain: Mapping[frozenset[str], int], counted: Mapping[str, int]
) -> Iterator[str]:
    codes = sorted({*known, *(code for code, number in counted.items() if number)})
    excess = {code: counted.get(code, 0) - known.get(code, 0) for code in codes}
    lost = [code for code in codes if excess[code] < 0]
    for code in lost:
        yield f"{known[code]} events are known to clients as {code}, but {counted.get(code, 0)} are counted"
    if lost:
        return
    filled = {code: number for code, number in excess.items() if number}
    for some in _subsets(filled):
        need = sum(filled[code] for code in some)
        have = sum(number for possible, number in uncertain.items() if possible & some)
        if need > have:
            yield f"{need} events more are counted as {_names(some)} than clients know of; {have} are uncertain"
            return
    certain = {possible: number for possible, number in uncertain.items() if UNCOUNTED not in possible}
    for several in _unions(certain):
        need = sum(number for possible, number in certain.items() if possible <= several)
        have = sum(excess.get(code, 0) for code in several)
        if need > have:
            yield f"{need} events must be counted as {_names(several)}, but {have} are"
            return


def _subsets(codes: Iterable[str]) -> Iterator[frozenset[str]]:
    listed = list(codes)
    for size in range(1, len(listed) + 1):
        yield from map(frozenset, itertools.combinations(listed, size))


def _unions(sets: Iterable[frozenset[str]]) -> Iterator[frozenset[str]]:
    """Yield every union of some of the sets, the smallest first: no others can be the first to lack room."""
    listed = list(sets)
    chosen = (each for size in range(1, len(listed) + 1) for each in itertools.combinations(listed, size))
    yield from sorted({frozenset().union(*some) for some in chosen}, key=lambda some: (len(some), sorted(some)))


def _names(codes: Iterable[str]) -> str:
    return " or ".join(sorted(codes))
