"""What HTTP requests have in common: their call, queries given once, and their end when the client leaves."""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from service.calls import Call
from service.errors import ClientLeft, InvalidParameter

T = TypeVar("T")


def call_of(request: Request) -> Call:
    """Return the call that a request is."""
    call: Call = request.state.call
    return call


async def given_once(request: Request) -> None:
    """Pass queries whose names differ: of two values the last would count, and nobody would know.

    Raises:
        InvalidParameter: a name is given twice.

    """
    for name, times in Counter(name for name, _ in request.query_params.multi_items()).items():
        if times > 1:
            raise InvalidParameter(f"{name} is given {times} times; give it once")


async def unless_client_leaves(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``; cancel it when the connection closes first.

    Raises:
        ClientLeft: it did.

    """
    task = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((task, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeft("the client closed the connection before its answer was ready")
        return task.result()
    finally:
        leaving.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
