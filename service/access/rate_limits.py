"""How much one caller may ask for: requests a second, and how many at once.

A request costs one of the rate, and so does each frame of a stream when its turn comes: what was dropped before cost
nothing. Above the rate a request is refused, a frame under ``LATEST`` is dropped as overload before it is decoded, and
one under ``EVERY`` waits, which slows the sender. A stream takes one place for as long as it is open.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from service.errors import RateLimited, TooManyAtOnce


class Allowance:
    """What one caller may still do."""

    def __init__(self, rate: float = math.inf, places: float = math.inf, clock: Callable[[], float] = time.monotonic):
        self._rate = rate  # a second; a pause saves up as many as one second brings
        self._places = places
        self._clock = clock  # seconds
        self._most = max(1.0, rate)
        self._left = self._most
        self._counted = clock()

    def take(self) -> None:
        """Spend one request.

        Raises:
            RateLimited: none is left; the error says when the next one comes.

        """
        if wait := self._seconds_short():
            raise RateLimited(f"more than {self._rate:g} requests a second (RATE_LIMIT); send fewer", wait)
        self._left -= 1

    async def wait(self) -> None:
        """Spend one request as soon as there is one."""
        while wait := self._seconds_short():  # noqa: ASYNC110 - time brings it, nobody announces it
            await asyncio.sleep(wait)
        self._left -= 1

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the places inside the block.

        Raises:
            TooManyAtOnce: all are taken.

        """
        if self._places < 1:
            raise TooManyAtOnce(
                "this token has as many requests and streams open as it may (TOKEN_CONCURRENCY); end one first"
            )
        self._places -= 1
        try:
            yield
        finally:
            self._places += 1

    def _seconds_short(self) -> float:
        """Return how long to wait for one request; 0 if there is one now."""
        if math.isinf(self._rate):
            return 0.0
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._counted) * self._rate)
        self._counted = now
        return max(0.0, (1 - self._left) / self._rate)


class Limits:
    """The allowance of each caller, by name."""

    def __init__(self, rate: float | None, places: int | None) -> None:
        self._rate = math.inf if rate is None else rate
        self._places = math.inf if places is None else places
        self._allowances: dict[str, Allowance] = {}

    def of(self, name: str) -> Allowance:
        """Return the one allowance of a caller, whichever way each request came."""
        return self._allowances.setdefault(name, Allowance(self._rate, self._places))


_current: ContextVar[Allowance | None] = ContextVar("allowance", default=None)


def current() -> Allowance:
    """Return the allowance of whoever is being served in this task; without limits where nobody set any."""
    return _current.get() or Allowance()


@contextmanager
def spending(allowance: Allowance) -> Iterator[None]:
    """Take one request and a place from ``allowance``, and make it the current one of this task.

    Raises:
        TooManyAtOnce: all its places are taken.
        RateLimited: no request is left.

    """
    with allowance.place():
        allowance.take()
        _current.set(allowance)
        yield
