"""What the messages of a gRPC call are held to; health, which is open to all, to little."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from service.errors import TooManyWatches
from service.rpc.call import Context

OPEN_MESSAGE_SECONDS = 5.0
OPEN_MESSAGE_BYTES = 1024
MAX_WATCHES = 16  # on one connection


@dataclass(frozen=True)
class MessageLimits:
    """What the messages of a call are held to."""

    message_seconds: float  # for the one message of a unary call to arrive
    message_bytes: int  # of any message
    held: Callable[[Context], AbstractContextManager[Any]] = nullcontext  # for the time of the call
    turn: Callable[[Context], AbstractAsyncContextManager[Any]] = nullcontext  # while that one message is awaited


class HealthLimits:
    """Those of health, for which nobody needs a token: of each connection one message is awaited, few watches are kept.

    gRPC takes in a message that is awaited, up to its own limit of tens of megabytes, before anybody can see its size.
    """

    def __init__(self) -> None:
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by peer, as are the watches
        self._watches: Counter[str] = Counter()

    def of(self, *, watch: bool) -> MessageLimits:
        """Return those of a call that is answered once, or of one that is answered on and on."""
        return MessageLimits(
            OPEN_MESSAGE_SECONDS,
            OPEN_MESSAGE_BYTES,
            self._watching if watch else nullcontext,
            lambda context: self._turns.setdefault(context.peer(), asyncio.Lock()),
        )

    @contextmanager
    def _watching(self, context: Context) -> Iterator[None]:
        peer = context.peer()
        if self._watches[peer] >= MAX_WATCHES:
            raise TooManyWatches(f"this connection has {MAX_WATCHES} watches of health open; close one first")
        self._watches[peer] += 1
        try:
            yield
        finally:
            self._watches[peer] -= 1
            self._watches += Counter()  # forgets who has none
