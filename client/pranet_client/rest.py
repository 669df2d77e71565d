"""Requests over REST: in time, and repeated where that is safe, with errors that say what happened."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx

from pranet_client.errors import CLOSED, UNREACHABLE, ClientError, RequestFailed

REPEATED = (429, 503)  # the service did not begin the work
BROKEN = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)  # a connection, such as an idle one, was closed
REPEAT_SECONDS = 1.0  # before the next attempt, unless ``Retry-After`` says otherwise

T = TypeVar("T")


class Rest:
    """Sends requests, all of which are safe to repeat: the service keeps nothing of them.

    Args:
        http: the connections.
        timeout: seconds that one request may take, with all its attempts; of a batch, each wait for an answer.
        retries: attempts after the first.

    """

    def __init__(self, http: httpx.AsyncClient, timeout: float, retries: int) -> None:
        self._http = http
        self._address = str(http.base_url.copy_with(userinfo=b""))  # without a password, for errors
        self._timeout = timeout
        self._retries = retries

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Return a whole, successful answer.

        Raises:
            RequestFailed: the service refused the request, failed on it, was too slow, or cannot be reached.

        """
        try:
            async with asyncio.timeout(self._timeout), self.opened(method, path, **options) as answer:
                await answer.aread()
                return answer
        except TimeoutError:
            raise self._too_slow() from None

    async def parsed(self, parse: Callable[[Any], T], method: str, path: str, **options: Any) -> T:
        """Return what ``parse`` makes of the JSON of a successful answer.

        Raises:
            RequestFailed: see ``request``; or the answer is not one of this service.

        """
        answer = await self.request(method, path, **options)
        return self.understood(answer, parse, answer.content)

    def understood(self, answer: httpx.Response, parse: Callable[[Any], T], content: bytes | str) -> T:
        """Return what ``parse`` makes of JSON in a successful answer.

        Raises:
            RequestFailed: the answer is not one of this service.

        """
        try:
            return parse(json.loads(content))
        except (ValueError, LookupError, TypeError) as error:
            raise self.foreign(answer) from error

    def foreign(self, answer: httpx.Response) -> RequestFailed:
        """Return the error of a successful answer that is not one of this service."""
        reason = f"{self._address} answers, but not as this service does; check the address"
        return RequestFailed(f"http-{answer.status_code}", reason, status=answer.status_code)

    @asynccontextmanager
    async def opened(self, method: str, path: str, **options: Any) -> AsyncIterator[httpx.Response]:
        """Yield a successful answer whose body is still to be read.

        Raises:
            RequestFailed: see ``request``.
            ClientError: the connections are closed.

        """
        end = asyncio.get_running_loop().time() + self._timeout
        answer: httpx.Response | None = None
        try:
            answer = await self._answer(end, self._http.build_request(method, path, **options))
            try:
                yield answer
            finally:
                await answer.aclose()
        except httpx.TimeoutException:
            raise self._too_slow() from None
        except httpx.TransportError as error:
            if self._http.is_closed:
                raise ClientError(CLOSED) from None
            reason = str(error) or type(error).__name__
            if answer is not None:
                what = f"the connection to {self._address} broke before the whole answer had come; send it again"
                raise RequestFailed(UNREACHABLE, what) from error
            raise RequestFailed.unreachable(self._address, reason, grpc=False) from error

    async def _answer(self, end: float, request: httpx.Request) -> httpx.Response:
        left = self._retries
        failure: Exception | None = None
        while True:
            if self._http.is_closed:  # by its owner, perhaps meanwhile
                raise ClientError(CLOSED)
            pause = REPEAT_SECONDS
            try:
                answer = await self._http.send(request, stream=True)
                if answer.is_success:
                    return answer
                failure = refused = await _failure(answer)
                pause = refused.retry_after or pause
                repeatable = answer.status_code in REPEATED
            except httpx.ConnectError:
                if failure is None:
                    raise
                raise failure from None  # the service said why before it went away
            except BROKEN as error:
                failure, repeatable, pause = failure or error, True, 0.0
            if not repeatable or not left or asyncio.get_running_loop().time() + pause > end:
                raise failure
            left -= 1
            await asyncio.sleep(pause)

    def _too_slow(self) -> RequestFailed:
        return RequestFailed("timeout", f"no answer within {self._timeout:g} s; give the client a longer timeout")


async def _failure(answer: httpx.Response) -> RequestFailed:
    try:
        await answer.aread()
    finally:
        await answer.aclose()
    try:
        body = answer.json() if "json" in answer.headers.get("content-type", "") else {}
    except ValueError:
        body = {}
    return problem(
        {"detail": answer.text[:500], **(body if isinstance(body, dict) else {}), "status": answer.status_code},
        answer.headers.get("retry-after", ""),
        answer.headers.get("x-request-id"),
    )


def problem(body: dict[str, Any], retry_after: str = "", request_id: str | None = None) -> RequestFailed:
    """Return the error that a problem (RFC 9457) describes."""
    status = int(body["status"])
    return RequestFailed(
        str(body.get("type", f"http-{status}")).removeprefix("urn:pranet:error:"),
        str(body.get("detail", "")),
        status=status,
        retry_after=float(retry_after) if retry_after.isdigit() else None,
        request_id=body.get("request_id", request_id),
    )
