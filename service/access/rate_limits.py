"""Limits for each caller: a rate limit, and a limit on what is open at once.

Each request counts towards the rate limit, and so does each frame or request in a stream when its turn comes; frames
dropped before that do not count. Above the limit, a request is refused, and a frame under ``LATEST`` is dropped as
overload before it is decoded. A frame under ``EVERY``, or a request in a stream, waits, which slows its sender. An open
stream holds one place.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from service.errors import RateLimited, TooManyAtOnce
from service.processes.accounts import Account, Accounts

ROUNDING = 1e-6  # requests: the clock counts from the start of the machine, so that sums of its times are not exact


class Allowance:
    """What one caller may still do: a token bucket of requests, and a number of free places."""

    def __init__(
        self,
        rate: float = math.inf,
        places: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
        account: Account | None = None,
    ) -> None:
        self._rate = rate  # requests per second; the bucket holds those of one second
        self._places = places
        self._clock = clock  # seconds
        self._most = max(1.0, rate)
        self._account = account or Account()

    def take(self) -> None:
        """Take one request from the bucket.

        Raises:
            RateLimited: the bucket is empty; the error says when to retry.

        """
        if wait := self._taken():
            raise RateLimited(
                f"this token sends more than {self._rate:g} requests per second (RATE_LIMIT); wait as Retry-After says",
                wait,
            )

    async def wait(self) -> None:
        """Wait until the bucket holds a request, and take it."""
        while wait := self._taken():  # noqa: ASYNC110 - only time refills the bucket; there is no event
            await asyncio.sleep(wait)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one place for the duration of the block.

        Raises:
            TooManyAtOnce: no place is free.

        """
        with self._account.locked():
            if self._account.open >= self._places:
                raise TooManyAtOnce(
                    "this token has too many requests and streams open (TOKEN_CONCURRENCY); wait until one ends"
                )
            self._account.add(1)
        try:
            yield
        finally:
            self._account.add(-1)

    def _taken(self) -> float:
        """Take a request from the bucket; if it holds none, return in how many seconds it does."""
        if math.isinf(self._rate):
            return 0.0
        with self._account.locked():
            now = self._clock()
            full_at = max(self._account.full_at, now)
            left = self._most - (full_at - now) * self._rate
            if left < 1 - ROUNDING:
                return (1 - left) / self._rate
            self._account.full_at = full_at + 1 / self._rate
            return 0.0


class Limits:
    """The allowances of all callers; processes that share their accounts limit them together."""

    def __init__(self, rate: float | None, places: int | None, accounts: Accounts | None = None) -> None:
        self._rate = math.inf if rate is None else rate
        self._places = math.inf if places is None else places
        self._accounts = accounts
        self._allowances: dict[str, Allowance] = {}

    def of(self, name: str) -> Allowance:
        """Return the allowance of the named caller, which all transports share."""
        if (found := self._allowances.get(name)) is None:
            account = self._accounts.of(name) if self._accounts else Account()
            found = self._allowances[name] = Allowance(self._rate, self._places, account=account)
        return found


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
