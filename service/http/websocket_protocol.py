"""WebSocket connections of uvicorn whose handshakes and messages may be broken, or far too many.

What each part is for:

* a broken handshake ends at once, counted, with an error in the form of all others: uvicorn leaves some open for ever;
* pings, pongs and fragments have a rate: each read of 256 KiB holds 43,000 of them, 0.4 s in which nobody is answered;
* text that is not UTF-8 and a refusal by a route are the client's faults: uvicorn logs each as an error of the service.
"""

import asyncio
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import HeaderLineTooLong, RequestLineTooLong, TooManyHeaders
from websockets.frames import CloseCode, Frame
from websockets.http11 import Request

from service.calls import Calls
from service.errors import HeadTooLarge, InvalidRequest
from service.http.middleware import HANDSHAKE
from service.http.protocol import refuse

TOO_LARGE = (RequestLineTooLong, HeaderLineTooLong, TooManyHeaders)
LOOSE_FRAMES = 1_000  # pings, pongs and fragments that pass at once
LOOSE_FRAMES_A_SECOND = 10_000  # in the long run; each takes some 10 us


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One connection, from its handshake on; its methods are called by the transport."""

    def __init__(self, *given: Any, calls: Calls, **named: Any) -> None:
        super().__init__(*given, **named)
        self._calls = calls
        self._loose_frames = 0  # in the bytes that came last
        self._due = 0.0  # when all that came so far will have come at this rate, loop time
        self._waiting: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """End what is not even a request that could ask for a WebSocket; let a flood of frames wait."""
        self._loose_frames = 0
        super().data_received(data)
        now = self.loop.time()
        self._due = max(self._due, now) + self._loose_frames / LOOSE_FRAMES_A_SECOND
        if (early := self._due - now - LOOSE_FRAMES / LOOSE_FRAMES_A_SECOND) > 0:
            self.transport.pause_reading()
            self._waiting = self.loop.call_later(early, self._go_on)
        if self.conn.handshake_exc and not self.handshake_initiated:
            self._refuse(self.conn.handshake_exc)

    def handle_ping(self) -> None:
        """Count a ping, and answer it."""
        self._loose_frames += 1
        super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        """Count a pong, asked for or not."""
        self._loose_frames += 1
        super().handle_pong(event)

    def handle_cont(self, event: Frame) -> None:
        """Count a fragment, and take it."""
        self._loose_frames += 1
        super().handle_cont(event)

    async def receive(self) -> Any:
        """Hand the application its next message, which lets the connection be read again unless it has to wait."""
        message = await super().receive()
        if self._waiting and not self.transport.is_closing():
            self.transport.pause_reading()
        return message

    def _go_on(self) -> None:
        self._waiting = None
        if not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def handle_connect(self, event: Request) -> None:
        """Take a handshake on, if it is one."""
        self.conn.accept(event)
        if self.conn.handshake_exc:
            self._refuse(self.conn.handshake_exc)
        else:
            super().handle_connect(event)

    def send_receive_event_to_app(self) -> None:
        """Close the connection of who sends text that is not UTF-8 (RFC 6455, section 8.1)."""
        if self.curr_msg_data_type == "text" and not self.close_sent and not _is_text(b"".join(self.frames)):
            self.conn.send_close(CloseCode.INVALID_DATA, "text must be UTF-8; send frames as binary messages")
            self.handle_parser_exception()
        else:
            super().send_receive_event_to_app()

    async def send(self, message: Any) -> None:
        """Take a refusal by a route for the end of the handshake; uvicorn would report each as an error."""
        await super().send(message)
        self.handshake_complete = self.handshake_complete or self.close_sent

    def _refuse(self, fault: Exception) -> None:
        reason = fault.__cause__ or fault
        error = (HeadTooLarge if isinstance(fault, TOO_LARGE) else InvalidRequest)(
            f"this opens no WebSocket ({reason}); see RFC 6455, or use a WebSocket library"
        )
        self.handshake_initiated = self.handshake_complete = self.close_sent = True  # nothing more is to be said
        refuse(self.transport, error, self._calls, HANDSHAKE)
        self.transport.close()


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
