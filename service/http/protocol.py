"""HTTP/1.1 connections with limits on the time and size of a request's head, which uvicorn does not have.

The head is the request line with the headers. A timer runs from the start of the connection (on a kept connection: from
the first byte of the next request) until the head is complete. The body has the request's deadline, see
``service.http.request``.

An early response, sent before the body is complete, carries ``Connection: close``. The rest of the body is then read
and discarded, up to a limit of bytes and seconds, before the connection is closed, so that clients that read only after
sending can read the response. Trailer fields after a chunked body are ignored; trailers and chunk headers have the same
size limit as a head.

Malformed HTTP is refused, counted and logged here, after the answers to earlier requests on the connection. An error
inside a body is passed to the route that reads the body.
"""

import asyncio
import json
import re
import sys
from http import HTTPStatus
from typing import Any

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.calls import Calls, Transport
from service.errors import HeadTooLarge, HeadTooSlow, InvalidRequest, ServiceError
from service.http.middleware import REST
from service.http.request import FAULT

HEAD_SECONDS = 10.0
MAX_HEAD_BYTES = 32 * 1024
DISCARD_SECONDS = 5.0  # for the rest of a body after an early response
# After an Upgrade header, the parser treats the body as another protocol. A server may ignore the header (RFC 9110,
# section 7.8), and curl --http2 relies on that.
OTHER_UPGRADE = re.compile(rb"(?i)(?<=\n)upgrade(?=[ \t]*:(?![ \t]*websocket))")
TLS_HANDSHAKE = b"\x16\x03"  # the first bytes of a TLS connection


class HttpProtocol(HttpToolsProtocol):
    """One connection; the asyncio transport, the HTTP parser and uvicorn's request cycle call its methods."""

    def __init__(self, *given: Any, calls: Calls, max_discarded_bytes: int, **named: Any) -> None:
        super().__init__(*given, **named)
        self._calls = calls
        self._discardable_bytes = max_discarded_bytes  # how many bytes of bodies may still be discarded
        self._timer: asyncio.TimerHandle | None = None
        self._in_head = True  # between requests, or inside a head
        self._head_bytes = 0
        self._framing_bytes = 0  # chunk headers and trailers since the last bytes of a body
        self._fault: ServiceError | None = None  # what is wrong with the head, for ``send_400_response``
        self._closed_for_reading = False  # malformed HTTP came: everything after it is ignored
        self._pending_error: ServiceError | None = None  # sent after the answers to earlier requests
        self._close_after_body = False  # an early response was sent: close once the body is complete
        self._requests: set[asyncio.Task[Any]] = set()  # in progress
        self.app = self._wrapped(self.app)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer for the first head."""
        super().connection_made(transport)
        self._start_timer(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timer, and the work for a client that disconnected."""
        self._stop_timer()
        super().connection_lost(exc)
        for request in self._requests:
            request.cancel()

    def data_received(self, data: bytes) -> None:
        """Check received bytes against the limits, and pass them to the parser."""
        if self._closed_for_reading:
            return
        if self._in_head:
            if not self._head_bytes and data.startswith(TLS_HANDSHAKE):
                self._fault = InvalidRequest("the client speaks TLS, but TLS is off on this port; use http://")
            self._head_bytes += len(data)
            self._start_timer(HEAD_SECONDS)
            head, end, rest = data.partition(b"\r\n\r\n")
            data = OTHER_UPGRADE.sub(b"ignored", head) + end + rest
        elif self.cycle.response_complete:
            self._discardable_bytes -= len(data)
            if self._discardable_bytes < 0:
                self._close()
                return
        self._framing_bytes += len(data)
        super().data_received(data)
        if max(self._head_bytes, self._framing_bytes) > MAX_HEAD_BYTES and not self._closed_for_reading:
            self._refuse(_too_large())

    def on_message_begin(self) -> None:
        """Start the timer also for a head that arrives together with the body before it."""
        super().on_message_begin()
        self._start_timer(HEAD_SECONDS)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; ignore trailer fields, as a recipient may (RFC 9110, section 6.5.1)."""
        if self._in_head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Pass on a piece of the body, after which framing is counted from 0."""
        self._framing_bytes = 0
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """Check the size of the complete head and its Host header; from here on the request's own deadline applies."""
        self._stop_timer()
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES:
            self._fault = _too_large()
        if [name for name, _ in self.headers].count(b"host") != 1 and self.parser.get_http_version() == "1.1":
            self._fault = self._fault or InvalidRequest(
                "the request has no Host header or several; send exactly one (RFC 9112, section 3.2)"
            )
        if self._fault:
            raise ValueError  # stops the parser; uvicorn then calls `send_400_response`
        super().on_headers_complete()
        self._in_head, self._head_bytes, self._framing_bytes = False, 0, 0

    def on_message_complete(self) -> None:
        """End a request; close the connection if it was answered before its body was complete."""
        self._stop_timer()
        self._in_head, self._framing_bytes = True, 0
        super().on_message_complete()
        if self._close_after_body and self.cycle.response_complete:
            self._close()

    def on_response_complete(self) -> None:
        """Send a pending error, or limit the time for the rest of a body after an early response."""
        super().on_response_complete()
        if self._pending_error and self.cycle.response_complete:
            refuse(self.transport, self._pending_error, self._calls, REST)
            self.transport.close()
        elif not self._in_head:
            self._start_timer(DISCARD_SECONDS)
        elif self._close_after_body:
            self._close()

    def send_400_response(self, msg: str) -> None:
        """Answer malformed HTTP with a problem document instead of uvicorn's plain text."""
        reason = sys.exception()  # uvicorn calls this in the handler of the parser's error
        self._refuse(
            self._fault
            or InvalidRequest(f"this is not a valid HTTP/1.1 request ({reason}); see RFC 9112, or use an HTTP library")
        )

    def _start_timer(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(seconds, self._time_out)

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _time_out(self) -> None:
        if self._in_head and self._head_bytes:
            self._refuse(
                HeadTooSlow(f"the request line and headers did not arrive within {HEAD_SECONDS:g} s; send them faster")
            )
        else:  # an idle connection expects no answer, and a request with an unread body already has one
            self.transport.close()

    def _close(self) -> None:
        """Stop reading and close the connection; there is nothing left to send."""
        self._stop_timer()
        self._closed_for_reading = True
        self.transport.close()

    def _refuse(self, error: ServiceError) -> None:
        """Stop reading, and report the error: to the client, after pending answers, or to the route that reads."""
        self._stop_timer()
        self._closed_for_reading = True
        if self.cycle is None or self.cycle.response_complete:
            if self._in_head:  # otherwise the error is in the body of a request that is already answered
                refuse(self.transport, error, self._calls, REST)
            self.transport.close()
        elif self._in_head:
            self._pending_error = error
        else:
            state: Any = self.cycle.scope["state"]
            state[FAULT] = error
            self.cycle.keep_alive = False
            self.cycle.message_event.set()

    def _wrapped(self, app: ASGI3Application) -> ASGI3Application:
        """Wrap the application: mark early responses with ``Connection: close``, and track requests in progress.

        A request with a malformed body receives a disconnect; ``service.http.request`` then raises the error in
        ``FAULT``.
        """

        async def run(scope: Any, receive: Any, send: Any) -> None:
            async def received() -> Any:
                message = None if FAULT in scope["state"] else await receive()
                return {"type": "http.disconnect"} if FAULT in scope["state"] else message

            async def sent(message: Any) -> None:
                cycle = self.cycle
                early = cycle.scope is scope and cycle.more_body and not self._closed_for_reading
                if message["type"] != "http.response.start" or not early:
                    await send(message)
                    return
                self._close_after_body = True
                await send({**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]})
                cycle.keep_alive = True  # else uvicorn closes at once, and a client that still sends loses the answer

            request = asyncio.current_task()
            assert request is not None
            self._requests.add(request)
            try:
                await app(scope, received, sent)
            except asyncio.CancelledError:
                if not self.transport.is_closing():
                    raise
            finally:
                self._requests.discard(request)

        return run


def refuse(connection: asyncio.Transport, error: ServiceError, calls: Calls, transport: Transport) -> None:
    """Answer, count and log a request that reaches no route."""
    request_id = calls.refuse(transport, error)
    body = json.dumps(error.problem(request_id)).encode()
    head = (
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\ncontent-type: application/problem+json\r\n"
        f"content-length: {len(body)}\r\nx-request-id: {request_id}\r\nconnection: close\r\n\r\n"
    )
    connection.write(head.encode() + body)


def _too_large() -> HeadTooLarge:
    return HeadTooLarge(
        f"the request line and headers have more than {MAX_HEAD_BYTES} bytes; send fewer or shorter headers"
    )
