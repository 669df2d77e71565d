"""Content negotiation: which media type a request wants, by its ``Accept`` (RFC 9110, section 12.5.1).

A range's parameters other than ``q`` are ignored, as no answer of the service has parameters that a client may choose.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from starlette.requests import Request

from service.errors import NotAcceptable

# A quoted string that is not closed goes on to the end. If the pattern failed there, it would be tried from each quote.
QUOTED = r'"(?:[^"\\]|\\.?)*"?'
ELEMENT = re.compile(rf'(?:[^,"]|{QUOTED})+')  # of a list; a comma may be quoted
PARAMETER = re.compile(rf'(?:[^;"]|{QUOTED})+')
# More than RFC 9110 allows: old Java sends ``q=.2``, and other clients more decimals, or numbers above 1.
WEIGHT = re.compile(r"q=(\d+(?:\.\d*)?|\.\d+)", re.IGNORECASE)
ANYTHING = ("*/*", "*")  # old Java sends the second


class Range(NamedTuple):
    """One element of an ``Accept``."""

    text: str  # with its parameters
    kind: str  # type/subtype, type/*, */* or *, in lower case
    quality: float  # 0 to 1

    def specificity(self, media_type: str) -> int:
        """Return 3 if it is this type, 2 for its ``type/*``, 1 for any, and 0 if it does not match."""
        alike = (self.kind in ANYTHING, self.kind == f"{media_type.partition('/')[0]}/*", self.kind == media_type)
        return max(number * matches for number, matches in enumerate(alike, 1))


def accept_of(request: Request) -> str:
    """Return the ``Accept`` of a request, its fields joined; empty if it has none, which means any type."""
    return ", ".join(request.headers.getlist("accept"))


def ranges(accept: str) -> list[Range]:
    """Parse an ``Accept``; an element whose weight is malformed is left out."""
    found = []
    for element in ELEMENT.findall(accept):
        kind, *parameters = (each.strip() for each in PARAMETER.findall(element) or [""])
        weights = [WEIGHT.fullmatch(each) for each in parameters if each.lower().startswith("q=")]
        if kind and all(weights):
            quality = min(float(weights[0][1]), 1.0) if weights and weights[0] else 1.0
            found.append(Range(element.strip(), kind.lower(), quality))
    return found


def preferred(accept: str, offered: Sequence[str]) -> str | None:
    """Return the media type out of ``offered`` that ``accept`` prefers, or None if it accepts none of them.

    Of types with equal weight, one that is named wins over one that only a wildcard covers, and then the first.
    """
    if not accept.strip():
        return offered[0]
    given = ranges(accept)

    def rank(media_type: str) -> tuple[float, int]:
        matching = [(each.specificity(media_type), each.quality) for each in given if each.specificity(media_type)]
        specificity, quality = max(matching, default=(0, 0.0))  # the most specific range decides
        return quality, specificity

    best = max(offered, key=rank)
    return best if rank(best)[0] else None


def by_preference(accept: str) -> str:
    """Return an ``Accept`` in order of weight and without what it refuses, for libraries that read no weights."""
    return ", ".join(each.text for each in sorted(ranges(accept), key=lambda each: -each.quality) if each.quality)


def negotiated(request: Request, offered: Sequence[str]) -> str:
    """Return the media type out of ``offered`` that a request prefers.

    Raises:
        NotAcceptable: it accepts none of them.

    """
    if (chosen := preferred(accept_of(request), offered)) is None:
        given = f"Accept: {accept_of(request)[:80]} names no type of this answer"
        raise NotAcceptable(f"{given}; name one of {', '.join(offered)}, or leave the header out")
    return chosen
