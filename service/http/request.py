"""What HTTP calls have in common: their time, their end when the client leaves, the headers of their errors."""

import asyncio
import re
from collections import Counter
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from service.errors import (
    ClientLeft,
    CodedBody,
    InvalidParameter,
    InvalidRequest,
    ServiceError,
    Unauthenticated,
    UpgradeRequired,
)

T = TypeVar("T")

TIMEOUT_HEADER = "x-request-timeout-ms"
MILLISECONDS = re.compile(r"0*([1-9][0-9]*)")
MOST_DIGITS = 18  # more than any limit has; Python itself refuses to read thousands


def timeout_seconds(request: Request, limit_ms: int) -> float:
    """Return the time that a request may take: what it asks for, at most ``limit_ms``.

    Raises:
        InvalidRequest: the header is no whole number of milliseconds above 0.

    """
    given = request.headers.get(TIMEOUT_HEADER, str(limit_ms))
    if not (asked := MILLISECONDS.fullmatch(given)):
        raise InvalidRequest(f"X-Request-Timeout-Ms is {given[:32]!r}; send a whole number of milliseconds above 0")
    return min(int(asked[1][:MOST_DIGITS]), limit_ms) / 1e3


def error_headers(error: ServiceError) -> dict[str, str]:
    """Return the headers that an error is answered with."""
    headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
    if isinstance(error, Unauthenticated):
        headers["www-authenticate"] = 'Bearer realm="pranet"'  # RFC 6750, section 3
    if isinstance(error, CodedBody):
        headers["accept-encoding"] = "identity"  # RFC 9110, section 12.5.3
    if isinstance(error, UpgradeRequired):
        headers |= {"upgrade": "websocket", "connection": "upgrade"}  # RFC 9110, sections 7.8 and 15.5.22
    return headers


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
        task.cancel()
        leaving.cancel()
        await asyncio.gather(task, leaving, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
