"""``WS /stream``: live video for browsers, with the same behaviour as the gRPC stream.

The first message is a text: the configuration as JSON. Each frame is then one binary message, and so is each answer:

    4 bytes    length of the JSON, little-endian
    JSON       frame: {frame_id, capture_time_us?, raw?: {format, width, height, stride?}}
               answer: {frame_id, outcome, age_ms, window_ms, quality, added_delay_ms}, and with a mask also
               reused and the fields of REST's JSON
    the rest   frame: the picture; answer: the mask, if there is one

Browsers cannot set headers on a WebSocket. They send the token in a subprotocol instead, and offer ``pranet.v1`` and
``pranet.bearer.TOKEN``. An accepted handshake is answered with ``pranet.v1``, a refused one with HTTP 401, or with 403
if the page's origin is not allowed.

The text ``{"end": true}`` ends the stream after the remaining answers. An error is sent as a last text message, an
RFC 9457 problem, before the connection is closed. Only a close code is sent for a violation of the protocol (1002), for
text that is not UTF-8 (1007), and for a message of more than twice the largest size (1009).
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

from fastapi import Response, WebSocket, WebSocketDisconnect
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from service.calls import Call, Transport
from service.errors import ClientLeft, InvalidRequest, ServiceError, TooManyBytes
from service.http.middleware import HANDSHAKE
from service.rest.errors import PROBLEM_TYPE, headers_of
from service.rest.websocket_messages import pack, parsed, stream_options, unpack
from service.runtime import Service
from service.settings import MESSAGE_LIMIT
from service.streams.frame import StreamFrame

# Close codes, RFC 6455 section 7.4.1 and IANA's registry.
NORMAL, GOING_AWAY, PROTOCOL_ERROR, TOO_BIG = "1000", "1001", "1002", "1009"
INTERNAL_ERROR, TRY_AGAIN_LATER = "1011", "1013"
CUT_OFF: dict[int, type[ServiceError]] = {  # close codes that uvicorn's WebSocket layer itself sends, and their causes
    1002: InvalidRequest,  # protocol error
    1007: InvalidRequest,  # text that is not UTF-8
    1009: TooManyBytes,
}
ONLY_END = 'send frames as binary messages, and as text only {"end": true}; a new configuration needs a new stream'
CLOSE_SECONDS = 1.0  # for the last messages of a connection
SUBPROTOCOL = "pranet.v1"  # accepted out of those that a browser offers; another one holds the token


async def stream(websocket: WebSocket) -> None:
    """Serve one stream from its opening to its end."""
    service: Service = websocket.app.state.service
    call: Call = websocket.state.call
    subprotocol = SUBPROTOCOL if SUBPROTOCOL in websocket.scope["subprotocols"] else None
    await websocket.accept(subprotocol, Headers(call.answer_headers).raw)
    call.transport = STREAM
    call.remove_deadline()
    service.readiness.check()  # after the handshake, since browsers hide why a handshake was refused
    messages = _messages(websocket, service.settings.max_message_bytes)
    options = stream_options(await service.streams.first(messages), service.settings.threshold)

    async def frames() -> AsyncIterator[StreamFrame]:
        async for message in messages:
            if isinstance(message, str):
                if parsed(message, ONLY_END) != {"end": True}:
                    raise InvalidRequest(f"the stream is configured already; {ONLY_END}")
                return
            yield unpack(message)

    async def send(frame: StreamFrame) -> None:
        try:
            await websocket.send_bytes(pack(frame))
        except (WebSocketDisconnect, RuntimeError) as error:
            raise ClientLeft("the client closed the connection") from error

    with service.streams.open(options) as opened:
        await opened.run(frames(), send)
    await _send_last(websocket.send, {"type": "websocket.close", "code": int(NORMAL), "reason": ""})


async def encode_error(scope: Scope, receive: Receive, send: Send) -> None:
    """Send an error: as an HTTP response if the handshake is open, otherwise as a last message and a close code."""
    error: ServiceError = scope["state"]["error"]
    call: Call = scope["state"]["call"]
    problem = json.dumps(error.problem(call.request_id))
    if call.transport is HANDSHAKE:
        refusal = Response(problem, error.status, call.answer_headers | headers_of(error), PROBLEM_TYPE)
        await WebSocket(scope, receive, send).send_denial_response(refusal)
        return
    close = {"type": "websocket.close", "code": int(call.code), "reason": ""}
    last = [] if isinstance(error, ClientLeft) else [{"type": "websocket.send", "text": problem}]
    await _send_last(send, *last, close)


async def _messages(websocket: WebSocket, max_bytes: int) -> AsyncIterator[str | bytes]:
    while (message := await websocket.receive())["type"] != "websocket.disconnect":
        data = message.get("bytes")
        data = message["text"] if data is None else data
        size = len(data.encode() if isinstance(data, str) else data)
        if size > max_bytes:
            raise TooManyBytes.of_message(size, max_bytes, MESSAGE_LIMIT)
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


async def _send_last(send: Send, *messages: Message) -> None:
    """Send the last messages of a connection; ignore that it is already closed or that the client does not read."""
    with contextlib.suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            for message in messages:
                await send(message)


STREAM = Transport("websocket", "pranet.close_code", ok=NORMAL, code=_close_code, failures=(INTERNAL_ERROR,))
