"""``WS /stream``: the same stream as over gRPC, for browsers.

The first message is text, the configuration as JSON. Then every frame is one binary message, and so is every answer:

    4 bytes    length of the JSON, little-endian
    JSON       frame: {frame_id, capture_time_us?, raw?: {format, width, height, stride}}
               answer: {frame_id, outcome, age_ms, window_ms, quality, added_delay_ms}, of a mask also what
               REST says of it in JSON
    the rest   frame: the picture; answer: the mask, if there is one

Browsers cannot send headers with it: they offer the subprotocols ``pranet.v1`` and ``pranet.bearer.TOKEN``. Who is let
in gets ``pranet.v1`` back, who is not an HTTP 401, or 403 where the page is of another site.

The text ``{"end": true}`` asks for the answers that are still open. What ends the stream otherwise is told in a last
text message, an RFC 9457 problem, before the connection is closed. (A close code alone has what breaks the protocol
itself, 1002, text that is not UTF-8, 1007, and a message of more than twice the largest size, 1009.)
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable

from fastapi import Response, WebSocket, WebSocketDisconnect
from starlette.types import Receive, Scope, Send

from service.calls import Call, Transport
from service.errors import ClientLeft, InvalidRequest, ServiceError, TooManyBytes
from service.http.middleware import HANDSHAKE
from service.rest.errors import PROBLEM_TYPE, headers_of
from service.rest.websocket_messages import pack, parsed, stream_options, unpack
from service.runtime import Service
from service.streams.frame import StreamFrame
from service.tasks import drop_tracebacks

# Close codes, RFC 6455 section 7.4.1 and IANA's registry.
NORMAL, GOING_AWAY, PROTOCOL_ERROR, TOO_BIG = "1000", "1001", "1002", "1009"
INTERNAL_ERROR, TRY_AGAIN_LATER = "1011", "1013"
CUT_OFF: dict[int, type[ServiceError]] = {  # what the transport itself ends a stream with, and its cause
    1002: InvalidRequest,  # protocol error
    1007: InvalidRequest,  # text that is not UTF-8
    1009: TooManyBytes,
}
CLOSE_SECONDS = 1.0  # for the last words
SUBPROTOCOL = "pranet.v1"  # what is chosen of those that a browser offers; the token is another of them


async def stream(websocket: WebSocket) -> None:
    """Serve one stream from its opening to its end."""
    service: Service = websocket.app.state.service
    call: Call = websocket.state.call
    subprotocol = SUBPROTOCOL if SUBPROTOCOL in websocket.scope["subprotocols"] else None
    await websocket.accept(subprotocol, _headers(call))
    call.transport = STREAM
    call.remove_deadline()
    service.readiness.check()  # now, as browsers do not show why a handshake was refused
    messages = _messages(websocket, service.settings.max_message_bytes)
    options = stream_options(await service.streams.first(messages), service.settings.threshold)

    async def frames() -> AsyncIterator[StreamFrame]:
        async for message in messages:
            if isinstance(message, str):
                if parsed(message) != {"end": True}:
                    raise InvalidRequest('the text is no end of the stream; send binary frames, or {"end": true}')
                return
            yield unpack(message)

    async def send(frame: StreamFrame) -> None:
        try:
            await websocket.send_bytes(pack(frame))
        except (WebSocketDisconnect, RuntimeError) as error:
            raise ClientLeft("the client closed the connection") from error

    with service.streams.open(options) as opened:
        await opened.run(frames(), send)
    await _send_last(websocket.close(int(NORMAL)))


async def encode_error(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a WebSocket with a problem, or end it with one and a close code, by how far it has come."""
    error: ServiceError = scope["state"]["error"]
    call: Call = scope["state"]["call"]
    problem = json.dumps(error.problem(call.request_id))
    if call.transport is HANDSHAKE:
        headers = {name.decode(): value.decode() for name, value in _headers(call)} | headers_of(error)
        refusal = Response(problem, error.status, headers, PROBLEM_TYPE)
        await WebSocket(scope, receive, send).send_denial_response(refusal)
        return
    drop_tracebacks(error)
    said = [] if isinstance(error, ClientLeft) else [send({"type": "websocket.send", "text": problem})]
    await _send_last(*said, send({"type": "websocket.close", "code": int(call.code), "reason": ""}))


async def _messages(websocket: WebSocket, max_bytes: int) -> AsyncIterator[str | bytes]:
    while (message := await websocket.receive())["type"] != "websocket.disconnect":
        data = message.get("bytes")
        data = message["text"] if data is None else data
        if len(data) > max_bytes:
            raise TooManyBytes.of_message(len(data), max_bytes)
        yield data
    if cause := CUT_OFF.get(message["code"]):
        call: Call = websocket.state.call
        call.code, call.cancelled_by = str(message["code"]), lambda: cause
    raise ClientLeft("the client closed the connection")


def _close_code(error: type[ServiceError]) -> str:
    if issubclass(error, ClientLeft) or error.status == 503:
        return GOING_AWAY
    if error.status == 413:
        return TOO_BIG
    if error.retry_after is not None or error.status == 429:
        return TRY_AGAIN_LATER
    return INTERNAL_ERROR if error.status >= 500 else PROTOCOL_ERROR


def _headers(call: Call) -> list[tuple[bytes, bytes]]:
    headers = [(b"x-request-id", call.request_id.encode())]
    return [*headers, (b"traceparent", call.traceparent.encode())] if call.traceparent else headers


async def _send_last(*messages: Awaitable[None]) -> None:
    """Send the last messages of a connection, which may be closed already, or not be read."""
    with contextlib.suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            for message in messages:
                await message


STREAM = Transport("websocket", "pranet.close_code", ok=NORMAL, code=_close_code, failures=(INTERNAL_ERROR,))
