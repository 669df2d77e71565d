"""HTTP/1.1 connections of uvicorn, with limits on time and size, and with errors in the service's format.

A head is the request line with the headers. What each part is for:

* A head has a time and a size limit, against heads that arrive byte by byte (Slowloris) or never end.
* After an early response, sent before the body is complete, the rest of the body has a time limit. uvicorn would read
  and discard a body without end. The response says ``Connection: close`` (RFC 9112, section 9.6): a client would lose
  its next request on this connection if the time ended at that moment.
* Trailer fields after a chunked body are dropped, as RFC 9110, section 6.5.1, allows. uvicorn would keep them all.
* A request must have exactly one Host header (RFC 9112, section 3.2). With two, a proxy and the check of origins could
  each use another one.
* When a client disconnects, its work is cancelled. uvicorn only tells applications that ask.
* Malformed HTTP is answered after the responses to earlier requests, so that the client does not mistake the error for
  one of them.
* A malformed body becomes an error of the route that reads it, so that the request is answered and counted once.
* An upgrade to another protocol than WebSocket is ignored (RFC 9110, section 7.8). uvicorn would lose the body of
  requests that offer HTTP/2, as those of ``curl --http2`` and Java's client do.
* A connection that is to be closed is closed after the end of the body. uvicorn would close it right after an early
  response, such as 413, and ``urllib`` could not read that.

The limits of the body are in ``service.http.request``.
"""

import asyncio
import json
import re
import sys
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

from httptools import HttpParserCallbackError, HttpParserInvalidMethodError
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.calls import Calls, Transport
from service.clients.connections import Connection, connection_of
from service.errors import HeadTooLarge, HeadTooSlow, InvalidRequest, ServiceError
from service.http.middleware import CONNECTION, REST
from service.http.request import FAULT

HEAD_SECONDS = 10.0
MAX_HEAD_BYTES = 32 * 1024
DISCARD_SECONDS = 5.0  # for the rest of a body after an early response
OTHER_UPGRADE = re.compile(rb"(?i)(?:\A|(?<=\n))upgrade(?=[ \t]*:(?![ \t]*websocket))")  # \A: of a segment
CLOSE = (b"connection", b"close")
TLS_HANDSHAKE = b"\x16\x03"  # the first bytes of a TLS connection


class HttpProtocol(HttpToolsProtocol):
    """One connection; the asyncio transport, the HTTP parser and uvicorn's request cycle call its methods."""

    def __init__(self, *given: Any, calls: Calls, **named: Any) -> None:
        super().__init__(*given, **named)
        self._calls = calls
        self._timer: asyncio.TimerHandle | None = None
        self._in_head = True  # between requests, or inside a head
        self._head_bytes = 0
        self._closes_after_body = False  # the response is sent, and the connection closes once the body is complete
        self._fault: ServiceError | None = None  # what is wrong with the head, for ``send_400_response``
        self._closed_for_reading = False  # malformed HTTP came: everything after it is ignored
        self._pending_error: ServiceError | None = None  # sent after the responses to earlier requests
        self._requests: set[asyncio.Task[Any]] = set()  # in progress
        self._had_work = False  # an answer to work was sent, perhaps not yet to its end; not one that was cut off
        self.app = self._tracked(self.app)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer for the first head."""
        super().connection_made(transport)
        self.app_state = {CONNECTION: self.client}
        methods = {"write": transport.write, "is_closing": transport.is_closing, "close": self._close_after_body}
        self._lingering: Any = SimpleNamespace(**methods)  # what a response is sent to
        self._start_timer(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timer, and the work for a client that disconnected."""
        self._stop_timer()
        super().connection_lost(exc)
        for request in self._requests:
            request.cancel()
        # These refer to this object: it would hold the body of its last request until a garbage collection.
        self.app = self.cycle = self._lingering = None  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Check the received bytes of a head against its limit, and pass them to the parser."""
        if self._closed_for_reading:
            return
        if self._in_head:
            if not self._head_bytes and data.startswith(TLS_HANDSHAKE):
                self._fault = InvalidRequest("the client speaks TLS, but TLS is off on this port; use http://")
            self._head_bytes += len(data)
            self._start_timer(HEAD_SECONDS)
            head, end, rest = data.partition(b"\r\n\r\n")
            data = OTHER_UPGRADE.sub(b"ignored", head) + end + rest
        super().data_received(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self._closed_for_reading:
            self._refuse(_too_large())

    def on_message_begin(self) -> None:
        """Start the timer also for a head that arrives together with the body before it."""
        super().on_message_begin()
        self._start_timer(HEAD_SECONDS)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, and drop trailer fields."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Check the size and Host header of the complete head; from here on the request's own deadline applies."""
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
        if self.cycle and self.cycle.scope is self.scope:  # not for a WebSocket
            self.cycle.transport = self._lingering
            self.cycle.default_headers = [*self.server_state.default_headers, CLOSE]  # until the body is complete
        self._in_head, self._head_bytes = False, 0

    def on_message_complete(self) -> None:
        """End a body; close the connection if that waited for it."""
        self._stop_timer()
        self._in_head = True
        if self.cycle:  # not for a WebSocket
            self.cycle.default_headers = self.server_state.default_headers
        super().on_message_complete()
        if self._closes_after_body:
            self.transport.close()

    def on_response_complete(self) -> None:
        """Send a pending error, or limit the time for the rest of a body after an early response."""
        super().on_response_complete()
        if self._pending_error and self.cycle and self.cycle.response_complete:
            refuse(self.transport, self._pending_error, self._calls, REST)
            self.transport.close()
        elif not self._in_head and self.cycle and self.cycle.response_complete:  # else the body is a later request's
            self._start_timer(DISCARD_SECONDS)

    def send_400_response(self, msg: str) -> None:
        """Answer malformed HTTP with a problem document instead of uvicorn's plain text."""
        self._refuse(self._fault or _malformed(sys.exception()))  # uvicorn calls this in the handler of its error

    def connection(self) -> Connection | None:
        """Return how far the client has read."""
        return connection_of(self.client, self.transport, had_work=self._had_work)

    def _close_after_body(self) -> None:
        """Close the connection after a response, but not while the client still sends its body."""
        if self._in_head or self._closed_for_reading:
            self.transport.close()
        else:
            self._closes_after_body = True

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

    def _refuse(self, error: ServiceError) -> None:
        """Stop reading, and report the error: to the client, after pending responses, or to the route that reads."""
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
            self.cycle.keep_alive = self.cycle.more_body = False
            self.cycle.message_event.set()

    def _tracked(self, app: ASGI3Application) -> ASGI3Application:
        """Wrap the application to track the tasks of its requests, so that ``connection_lost`` can cancel them."""

        async def run(scope: Any, receive: Any, send: Any) -> None:
            request = asyncio.current_task()
            assert request is not None
            self._requests.add(request)
            try:
                await app(scope, receive, send)
            except asyncio.CancelledError:
                if not request.cancelling():
                    raise
                # The client left, or the server ends. uvicorn knows it of the last request in a pipeline only.
                send.__self__.disconnected = True
                self.transport.close()
            finally:
                self._requests.remove(request)
                call = scope["state"].get("call")
                self._had_work |= call is not None and call.is_work and not call.is_cut_off

        return run


def refuse(
    connection: asyncio.Transport, error: ServiceError, calls: Calls, transport: Transport, lines: str = ""
) -> None:
    """Answer, count and log a request that reaches no route; ``lines`` are more lines of the answer's head."""
    request_id = calls.refuse(transport, error)
    body = json.dumps(error.problem(request_id)).encode()
    head = (
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\ncontent-type: application/problem+json\r\n"
        f"content-length: {len(body)}\r\nx-request-id: {request_id}\r\n{lines}connection: close\r\n\r\n"
    )
    connection.write(head.encode() + body)


def _malformed(reason: BaseException | None) -> ServiceError:
    if isinstance(reason, HttpParserInvalidMethodError):
        return InvalidRequest(
            "the request does not begin with a method of HTTP; use GET or POST. If it does, the body before it is "
            "longer than its Content-Length"
        )
    if isinstance(reason, HttpParserCallbackError):  # raised by uvicorn, for CONNECT and other forms of a target
        return InvalidRequest("the target of the request is not a path; send a path such as /segment")
    return InvalidRequest(f"this is not a valid HTTP/1.1 request ({reason}); see RFC 9112, or use an HTTP library")


def _too_large() -> HeadTooLarge:
    return HeadTooLarge(
        f"the request line and headers have more than {MAX_HEAD_BYTES} bytes; send fewer or shorter headers"
    )
