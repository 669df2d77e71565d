"""Limits for each caller: a rate limit, and a limit on what is open at once.

Each request counts towards the rate limit, and so does each frame of a stream when its turn comes; frames dropped
before that do not count. Above the limit, a request is refused, a frame under ``LATEST`` is dropped as overload before
it is decoded, and a frame under ``EVERY`` waits, which slows its sender. An open stream holds one place.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from service.errors import RateLimited, TooManyAtOnce


class Allowance:
    """What one caller may still do: a token bucket of requests, and a number of free places."""

    def __init__(self, rate: float = math.inf, places: float = math.inf, clock: Callable[[], float] = time.monotonic):
        self._rate = rate  # requests per second; the bucket holds those of one second
        self._places = places
        self._clock = clock  # seconds
        self._most = max(1.0, rate)
        self._left = self._most
        self._counted = clock()

    def take(self) -> None:
        """Take one request from the bucket.

        Raises:
            RateLimited: the bucket is empty; the error says when to retry.

        """
        if wait := self._seconds_short():
            raise RateLimited(
                f"this token sends more than {self._rate:g} requests per second (RATE_LIMIT); wait as Retry-After says",
                wait,
            )
        self._left -= 1

    async def wait(self) -> None:
        """Wait until the bucket holds a request, and take it."""
        while wait := self._seconds_short():  # noqa: ASYNC110 - only time refills the bucket; there is no event
            await asyncio.sleep(wait)
        self._left -= 1

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one place for the duration of the block.

        Raises:
            TooManyAtOnce: no place is free.

        """
        if self._places < 1:
            raise TooManyAtOnce(
                "this token has too many requests and streams open (TOKEN_CONCURRENCY); wait until one ends"
            )
        self._places -= 1
        try:
            yield
        finally:
            self._places += 1

    def _seconds_short(self) -> float:
        """Return the seconds until the bucket holds a request; 0 if it does."""
        if math.isinf(self._rate):
            return 0.0
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._counted) * self._rate)
        self._counted = now
        return max(0.0, (1 - self._left) / self._rate)


class Limits:
    """The allowances of all callers."""

    def __init__(self, rate: float | None, places: int | None) -> None:
        self._rate = math.inf if rate is None else rate
        self._places = math.inf if places is None else places
        self._allowances: dict[str, Allowance] = {}

    def of(self, name: str) -> Allowance:
        """Return the allowance of the named caller, which all transports share."""
        return self._allowances.setdefault(name, Allowance(self._rate, self._places))


_current: ContextVar[Allowance | None] = ContextVar("allowance", default=None)


def current() -> Allowance:
    """Return the allowance of the caller whom this task serves; unlimited if none was set."""
    return _current.get() or Allowance()


@contextmanager
def spending(allowance: Allowance) -> Iterator[None]:
    """Take a request, hold a place inside the block, and make ``allowance`` the current one of this task.

    Raises:
        TooManyAtOnce: no place is free.
        RateLimited: the bucket is empty.

    """
    with allowance.place():
        allowance.take()
        _current.set(allowance)
        yield
