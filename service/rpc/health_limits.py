"""Limits on the messages of a gRPC call, and stricter ones for health checks, which need no token."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from service.errors import TooManyWatches
from service.rpc.call import Context
from service.settings import MESSAGE_LIMIT

OPEN_MESSAGE_SECONDS = 5.0
OPEN_MESSAGE_BYTES = 1024
MAX_WATCHES = 16  # on one connection


@dataclass(frozen=True)
class MessageLimits:
    """Limits on the messages of a call."""

    message_seconds: float  # until the request message of a unary call has arrived
    message_bytes: int  # size of each message
    whose: str = MESSAGE_LIMIT  # the limit of the size
    held: Callable[[Context], AbstractContextManager[Any]] = nullcontext  # entered for the duration of the call
    turn: Callable[[Context], AbstractAsyncContextManager[Any]] = nullcontext  # entered while awaiting that message


class HealthLimits:
    """Limits on health checks: each connection has one message received at a time, and at most ``MAX_WATCHES`` watches.

    gRPC buffers a message that the server awaits, up to its own limit of tens of megabytes, before its size is known.
    Without these limits, clients without a token could fill the memory.
    """

    def __init__(self) -> None:
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by peer address, like the watches
        self._watches: Counter[str] = Counter()

    def of(self, *, watch: bool) -> MessageLimits:
        """Return the limits of a ``Watch`` (``watch``), which stays open, or of a ``Check``."""
        return MessageLimits(
            OPEN_MESSAGE_SECONDS,
            OPEN_MESSAGE_BYTES,
            "for a health check",
            self._watching if watch else nullcontext,
            lambda context: self._turns.setdefault(context.peer(), asyncio.Lock()),
        )

    @contextmanager
    def _watching(self, context: Context) -> Iterator[None]:
        peer = context.peer()
        if self._watches[peer] >= MAX_WATCHES:
            raise TooManyWatches(f"this connection has {MAX_WATCHES} health watches open; close one first")
        self._watches[peer] += 1
        try:
            yield
        finally:
            self._watches[peer] -= 1
            self._watches += Counter()  # removes peers whose count is 0
