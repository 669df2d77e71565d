"""WebSocket connections of uvicorn, protected against invalid handshakes, invalid text and floods of small frames.

What each part is for:

* An invalid handshake is refused at once with a counted error in the service's format; uvicorn never closes some.
* Pings, pongs and fragments have a rate limit. One read of 256 KiB can hold 43,000 of them, which take 0.4 s in which
  no other connection is served. Above the rate, reading from their connection pauses.
* Text that is not UTF-8, and a refusal by a route, are client errors; uvicorn logs them as errors of the service.
* A handshake during the shutdown is refused by the service, with its cause; uvicorn answers 500.
"""

import asyncio
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import HeaderLineTooLong, InvalidHeaderValue, RequestLineTooLong, TooManyHeaders
from websockets.frames import CloseCode, Frame
from websockets.http11 import Request

from service.calls import Calls
from service.clients.connections import Connection, connection_of
from service.errors import HeadTooLarge, InvalidRequest, UpgradeRequired
from service.http.middleware import CONNECTION, HANDSHAKE
from service.http.protocol import refuse

TOO_LARGE = (RequestLineTooLong, HeaderLineTooLong, TooManyHeaders)
VERSION = "Sec-WebSocket-Version"
OFFER = f"{VERSION}: 13\r\nupgrade: websocket\r\nconnection: upgrade\r\n"  # to another version (RFC 6455, section 4.4)
LOOSE_FRAMES = 1_000  # burst of pings, pongs and fragments that passes without a pause
LOOSE_FRAMES_A_SECOND = 10_000  # sustained rate; each frame takes some 10 us


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One connection, from its handshake on; the asyncio transport and uvicorn call its methods."""

    def __init__(self, *given: Any, calls: Calls, **named: Any) -> None:
        super().__init__(*given, **named)
        self._calls = calls
        self._heard = False  # bytes came since the last ping
        self._loose_frames = 0  # in the bytes received last
        self._due = 0.0  # loop time by which all frames so far would have come at the sustained rate
        self._waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Let the call know its connection."""
        super().connection_made(transport)
        self.app_state = {CONNECTION: self.client}

    def data_received(self, data: bytes) -> None:
        """Refuse bytes that are not an HTTP request, and pause reading during a flood of small frames."""
        self._heard = True
        self._loose_frames = 0
        super().data_received(data)
        now = self.loop.time()
        self._due = max(self._due, now) + self._loose_frames / LOOSE_FRAMES_A_SECOND
        if (early := self._due - now - LOOSE_FRAMES / LOOSE_FRAMES_A_SECOND) > 0:
            self.transport.pause_reading()
            self._waiting = self.loop.call_later(early, self._go_on)
        if self.conn.handshake_exc and not self.handshake_initiated:
            self._refuse(self.conn.handshake_exc)

    def keepalive_timeout(self) -> None:
        """Close the connection if the peer is gone; a pong may also wait behind frames that backpressure holds up."""
        if self.read_paused or self._heard:
            self._heard = False
            self.pong_timer = self.loop.call_later(self.ping_timeout or 0.0, self.keepalive_timeout)
        else:
            super().keepalive_timeout()

    def shutdown(self) -> None:
        """Close the connection; a handshake in progress goes on, so that its call refuses it with the cause."""
        if self.handshake_complete or not self.handshake_initiated:
            super().shutdown()

    def connection(self) -> Connection | None:
        """Return how far the client has read; one that is open after its call still sends the last answers."""
        return connection_of(self.client, self.transport, had_work=True)

    def handle_ping(self) -> None:
        """Count a ping, and answer it."""
        self._loose_frames += 1
        super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        """Count a pong, solicited or not."""
        self._loose_frames += 1
        super().handle_pong(event)

    def handle_cont(self, event: Frame) -> None:
        """Count a fragment, and add it to its message."""
        self._loose_frames += 1
        super().handle_cont(event)

    async def receive(self) -> Any:
        """Return the next message; uvicorn then resumes reading, which is paused again during a flood."""
        message = await super().receive()
        if self._waiting and not self.transport.is_closing():
            self.transport.pause_reading()
        return message

    def _go_on(self) -> None:
        self._waiting = None
        if not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def handle_connect(self, event: Request) -> None:
        """Go on with a valid handshake, and refuse an invalid one."""
        self.conn.accept(event)
        if self.conn.handshake_exc:
            self._refuse(self.conn.handshake_exc)
        else:
            super().handle_connect(event)

    def send_receive_event_to_app(self) -> None:
        """Pass on a message; close the connection if its text is not UTF-8 (RFC 6455, section 8.1)."""
        if self.curr_msg_data_type == "text" and not self.close_sent and not _is_text(b"".join(self.frames)):
            self.conn.send_close(CloseCode.INVALID_DATA, "text must be UTF-8; send frames as binary messages")
            self.handle_parser_exception()
        else:
            super().send_receive_event_to_app()

    async def send(self, message: Any) -> None:
        """Send a message; a refusal by a route ends the handshake, which uvicorn would log as an error."""
        await super().send(message)
        self.handshake_complete = self.handshake_complete or self.close_sent

    def _refuse(self, fault: Exception) -> None:
        reason = fault.__cause__ or fault
        is_other = isinstance(reason, InvalidHeaderValue) and reason.name == VERSION
        kind = UpgradeRequired if is_other else HeadTooLarge if isinstance(fault, TOO_LARGE) else InvalidRequest
        error = kind(f"the WebSocket handshake is invalid ({reason}); see RFC 6455, or use a WebSocket library")
        self.handshake_initiated = self.handshake_complete = self.close_sent = True  # uvicorn sends nothing more
        refuse(self.transport, error, self._calls, HANDSHAKE, OFFER if is_other else "")
        self.transport.close()


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
