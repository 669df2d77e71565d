"""The two doors to gRPC: by token, and the open one of health, whose callers hold little of the service."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from service.access.authentication import Gate
from service.errors import TooManyWatches
from service.rpc.call import Context, authorizations

OPEN_MESSAGE_SECONDS = 5.0
OPEN_MESSAGE_BYTES = 1024
MAX_WATCHES = 16  # on one connection


@dataclass(frozen=True)
class Door:
    """The terms on which a call comes in."""

    entered: Callable[[Context], AbstractContextManager[Any]]  # for the time of the call; raises ServiceError
    turn: Callable[[Context], AbstractAsyncContextManager[Any]]  # while the one message of a unary call is awaited
    message_seconds: float  # for that message
    message_bytes: int  # of any message


def by_token(gate: Gate, message_seconds: float, message_bytes: int) -> Door:
    """Return the door of all who have a token, or of everybody where none is asked for."""
    return Door(
        lambda context: gate.entered(authorizations(context.invocation_metadata())),
        lambda context: nullcontext(),
        message_seconds,
        message_bytes,
    )


class OpenDoors:
    """Those that nobody needs a token for: of each connection one message is awaited, and few watches are kept.

    gRPC takes in a message that is awaited, up to its own limit of tens of megabytes, before anybody can see its size.
    """

    def __init__(self) -> None:
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by peer, as are the watches
        self._watches: Counter[str] = Counter()

    def door(self, *, watch: bool) -> Door:
        """Return the door of a call that is answered once, or of one that is answered on and on."""
        return Door(
            self._watching if watch else lambda context: nullcontext(),
            lambda context: self._turns.setdefault(context.peer(), asyncio.Lock()),
            OPEN_MESSAGE_SECONDS,
            OPEN_MESSAGE_BYTES,
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
