"""HTTP/1.1 connections of uvicorn with limits of time and size, and errors in one form.

What each part is for:

* a time for each head, and a size: against heads that come byte by byte (Slowloris) or never end;
* a time for the rest of a body after its answer: against bodies that never end, which uvicorn reads and drops;
* fields after a chunked body are dropped: uvicorn would keep them all (RFC 9110, section 6.5.1, allows to drop them);
* one Host header (RFC 9112, section 3.2): two may mean one site to a proxy and another to the check of origins;
* the work of a client that left is dropped: uvicorn tells only who asks;
* what is no HTTP is answered behind the answers that are still open: uvicorn's answer would be taken for theirs;
* a body that breaks off becomes an error of the route that reads it, so that the request is answered and counted once;
* an upgrade to another protocol than WebSocket is ignored (RFC 9110, section 7.8): uvicorn would lose the body of those
  who offer HTTP/2, as ``curl --http2`` and Java's client do;
* who asks to close is closed after the body's end: uvicorn would cut off an early answer, such as 413, to ``urllib``.

The body itself has its limits in ``service.http.request``.
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
REST_SECONDS = 5.0  # for the rest of a body that nobody reads any more
OTHER_UPGRADE = re.compile(rb"(?i)(?<=\n)upgrade(?=[ \t]*:(?![ \t]*websocket))")
TLS_HANDSHAKE = b"\x16\x03"  # the first bytes of a client that speaks TLS


class HttpProtocol(HttpToolsProtocol):
    """One connection; its methods are called by the transport, the parser and the request's end."""

    def __init__(self, *given: Any, calls: Calls, **named: Any) -> None:
        super().__init__(*given, **named)
        self._calls = calls
        self._timer: asyncio.TimerHandle | None = None
        self._in_head = True  # or before it
        self._head_bytes = 0
        self._closing = False  # once the body has come and the answer is given
        self._fault: ServiceError | None = None
        self._deaf = False  # after what is no HTTP, nothing more is
        self._last_words: ServiceError | None = None  # after the answers that are still open
        self._requests: set[asyncio.Task[Any]] = set()  # that are being answered
        self.app = self._tracked(self.app)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the peer its time for a first head."""
        super().connection_made(transport)
        self._start_timer(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more, and drop the work of a client that left."""
        self._stop_timer()
        super().connection_lost(exc)
        for request in self._requests:
            request.cancel()

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head that is not complete."""
        if self._deaf:
            return
        if self._in_head:
            if not self._head_bytes and data.startswith(TLS_HANDSHAKE):
                self._fault = InvalidRequest("this is TLS, which the port does not speak; send plain HTTP/1.1")
            self._head_bytes += len(data)
            self._start_timer(HEAD_SECONDS)
            head, end, rest = data.partition(b"\r\n\r\n")
            data = OTHER_UPGRADE.sub(b"ignored", head) + end + rest
        super().data_received(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self._deaf:
            self._refuse(_too_large())

    def on_message_begin(self) -> None:
        """Give a head its time, also one that begins where a body ends."""
        super().on_message_begin()
        self._start_timer(HEAD_SECONDS)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a field of the head; one after a chunked body may be left out (RFC 9110, section 6.5.1)."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Judge the size of a head; from here on the request's own deadline holds."""
        self._stop_timer()
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES:
            self._fault = _too_large()
        if [name for name, _ in self.headers].count(b"host") != 1 and self.parser.get_http_version() == "1.1":
            self._fault = self._fault or InvalidRequest(
                "the request has none or several Host headers; send one (RFC 9112, section 3.2)"
            )
        if self._fault:
            raise ValueError  # the parser stops, and `send_400_response` is called
        super().on_headers_complete()
        if self.cycle and self.cycle.scope is self.scope:  # not for a WebSocket
            self._closing, self.cycle.keep_alive = not self.cycle.keep_alive, True  # until the body's end
        self._in_head, self._head_bytes = False, 0

    def on_message_complete(self) -> None:
        """Expect a head again, whenever it comes."""
        self._stop_timer()
        self._in_head = True
        super().on_message_complete()
        if self._closing and self.cycle.response_complete:
            self.transport.close()
        elif self._closing:
            self.cycle.keep_alive = False

    def on_response_complete(self) -> None:
        """Give the rest of a body that was answered early its time."""
        super().on_response_complete()
        if self._last_words and self.cycle.response_complete:
            refuse(self.transport, self._last_words, self._calls, REST)
            self.transport.close()
        elif not self._in_head:
            self._start_timer(REST_SECONDS)

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong in the form of all other errors."""
        reason = sys.exception()  # uvicorn calls this where it caught it
        self._refuse(
            self._fault
            or InvalidRequest(
                f"this is no HTTP/1.1 request as it should be ({reason}); see RFC 9112, or use an HTTP library"
            )
        )

    def _start_timer(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(seconds, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        if self._in_head and self._head_bytes:
            self._refuse(
                HeadTooSlow(
                    f"the request's line and headers did not arrive within {HEAD_SECONDS:g} s; send them at once"
                )
            )
        else:  # one who never said a word expects no answer; one who was answered has it
            self.transport.close()

    def _refuse(self, error: ServiceError) -> None:
        """Read no more, and say why to whoever is to be told."""
        self._stop_timer()
        self._deaf = True
        if self.cycle is None or self.cycle.response_complete:
            if self._in_head:  # else the request whose body this is has its answer
                refuse(self.transport, error, self._calls, REST)
            self.transport.close()
        elif self._in_head:
            self._last_words = error
        else:
            state: Any = self.cycle.scope["state"]
            state[FAULT] = error
            self.cycle.keep_alive = self.cycle.more_body = False
            self.cycle.message_event.set()

    def _tracked(self, app: ASGI3Application) -> ASGI3Application:
        """Return the application with its requests known, so that they can be cancelled."""

        async def run(scope: Any, receive: Any, send: Any) -> None:
            request = asyncio.current_task()
            assert request is not None
            self._requests.add(request)
            try:
                await app(scope, receive, send)
            except asyncio.CancelledError:
                if not self.transport.is_closing():
                    raise
            finally:
                self._requests.discard(request)

        return run


def refuse(connection: asyncio.Transport, error: ServiceError, calls: Calls, transport: Transport) -> None:
    """Answer and account for what no route will see."""
    request_id = calls.refuse(transport, error)
    body = json.dumps(error.problem(request_id)).encode()
    head = (
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\ncontent-type: application/problem+json\r\n"
        f"content-length: {len(body)}\r\nx-request-id: {request_id}\r\nconnection: close\r\n\r\n"
    )
    connection.write(head.encode() + body)


def _too_large() -> HeadTooLarge:
    return HeadTooLarge(
        f"the request's line and headers have more than {MAX_HEAD_BYTES} bytes; send fewer or shorter ones"
    )
