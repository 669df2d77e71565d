"""HTTP/1.1 connections that do not wait for ever: uvicorn sets no limit to the time and the size of a request's head.

Wherever the peer is the one who has to send, a timer runs: from the connection (or, on a kept one, from the first byte
of the next request) to the end of the head. What comes then, the body, has the request's own deadline in
``service.http.request``. An answer before its end says that the connection will be closed. It is closed after that end,
so that clients that send everything first can read the answer; it does not wait long, nor take any number of
bytes.
Fields after a chunked body mean nothing here and are not kept; they and the framing of chunks are no more than a head.

What is no HTTP is refused and counted here, after the answers to what came before it. A body that breaks off is told to
the route that reads it, which refuses the request as any other.
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
DISCARD_SECONDS = 5.0  # for the rest of a body that nobody reads any more
# The parser takes what follows a head that asks for another protocol as that protocol's, so for no body; but servers
# may ignore such a wish (RFC 9110, section 7.8), as curl --http2 expects.
OTHER_UPGRADE = re.compile(rb"(?i)(?<=\n)upgrade(?=[ \t]*:(?![ \t]*websocket))")
TLS_HANDSHAKE = b"\x16\x03"  # the first bytes of a client that speaks TLS


class HttpProtocol(HttpToolsProtocol):
    """One connection; its methods are called by the transport, the parser and the request's end."""

    def __init__(self, *given: Any, calls: Calls, max_discarded_bytes: int, **named: Any) -> None:
        super().__init__(*given, **named)
        self._calls = calls
        self._discardable_bytes = max_discarded_bytes  # that may still come of a body that nobody reads any more
        self._timer: asyncio.TimerHandle | None = None
        self._in_head = True  # or before it
        self._head_bytes = 0
        self._framing_bytes = 0  # since the last bytes of a body
        self._fault: ServiceError | None = None
        self._closed_for_reading = False  # after what is no HTTP, nothing more is
        self._pending_error: ServiceError | None = None  # after the answers that are still open
        self._close_after_body = False  # the connection is closed with the end of the body that was answered early
        self._requests: set[asyncio.Task[Any]] = set()  # that are being answered
        self.app = self._wrapped(self.app)

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
        if self._closed_for_reading:
            return
        if self._in_head:
            if not self._head_bytes and data.startswith(TLS_HANDSHAKE):
                self._fault = InvalidRequest("this is TLS, which the port does not speak; send plain HTTP/1.1")
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
        """Give a head its time, also one that begins where a body ends."""
        super().on_message_begin()
        self._start_timer(HEAD_SECONDS)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a field of the head; one after a chunked body may be left out (RFC 9110, section 6.5.1)."""
        if self._in_head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._framing_bytes = 0
        super().on_body(body)

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
        self._in_head, self._head_bytes, self._framing_bytes = False, 0, 0

    def on_message_complete(self) -> None:
        """Expect a head again, whenever it comes."""
        self._stop_timer()
        self._in_head, self._framing_bytes = True, 0
        super().on_message_complete()
        if self._close_after_body and self.cycle.response_complete:
            self._close()

    def on_response_complete(self) -> None:
        """Give the rest of a body that was answered early its time."""
        super().on_response_complete()
        if self._pending_error and self.cycle.response_complete:
            refuse(self.transport, self._pending_error, self._calls, REST)
            self.transport.close()
        elif not self._in_head:
            self._start_timer(DISCARD_SECONDS)
        elif self._close_after_body:
            self._close()

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
            self._timer = self.loop.call_later(seconds, self._time_out)

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _time_out(self) -> None:
        if self._in_head and self._head_bytes:
            self._refuse(
                HeadTooSlow(
                    f"the request's line and headers did not arrive within {HEAD_SECONDS:g} s; send them at once"
                )
            )
        else:  # one who never said a word expects no answer; one who was answered has it
            self.transport.close()

    def _close(self) -> None:
        """Read no more; what was to be said is said."""
        self._stop_timer()
        self._closed_for_reading = True
        self.transport.close()

    def _refuse(self, error: ServiceError) -> None:
        """Read no more, and say why to whoever is to be told."""
        self._stop_timer()
        self._closed_for_reading = True
        if self.cycle is None or self.cycle.response_complete:
            if self._in_head:  # else the request whose body this is has its answer
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
        """Return an application whose early answers announce the connection's end.

        To a request whose body broke off, its client seems to have left.
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
                cycle.keep_alive = True  # or uvicorn would close at once, and who still sends could not read the answer

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
