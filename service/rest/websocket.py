"""``WS /stream``: the same stream as over gRPC, for browsers.

The first message is text, the configuration as JSON. Then every frame is one binary message, and so is every answer:

    4 bytes    length of the JSON, little-endian
    JSON       frame: {frame_id, capture_time_us?, raw?: {format, width, height, stride}}
               answer: {frame_id, outcome, age_ms, window_ms, ...}
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
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect

from service.errors import ClientLeft, InternalError, InvalidRequest, ServiceError, TooManyBytes
from service.observability.access_log import request_id_from
from service.observability.tracing import Call
from service.rest.websocket_messages import pack, parsed, stream_options, unpack
from service.runtime import Service
from service.streams.stream import Answer, Frame
from service.tasks.group import forget_frames

# Close codes, RFC 6455 section 7.4.1 and IANA's registry.
NORMAL, GOING_AWAY, PROTOCOL_ERROR, INVALID_DATA, TOO_BIG = 1000, 1001, 1002, 1007, 1009
INTERNAL_ERROR, TRY_AGAIN_LATER = 1011, 1013
CUT_OFF: dict[int, type[ServiceError]] = {  # what the transport itself ends a stream with, and its cause
    PROTOCOL_ERROR: InvalidRequest,
    INVALID_DATA: InvalidRequest,
    TOO_BIG: TooManyBytes,
}
CLOSE_CODE = "close_code"  # in the state of a WebSocket that was cut off
CLOSE_SECONDS = 1.0  # for the last words
SUBPROTOCOL = "pranet.v1"  # what is chosen of those that a browser offers; the token is another of them

log = logging.getLogger("pranet.access")


async def stream(websocket: WebSocket) -> None:
    """Serve one stream from its opening to its end."""
    service: Service = websocket.app.state.service
    request_id = request_id_from(websocket.headers.get("x-request-id", ""))
    with service.tracing.call("WS /stream", request_id, websocket.headers, stream=True) as call:
        await _counted(websocket, service, call)


async def _counted(websocket: WebSocket, service: Service, call: Call) -> None:
    request_id, began, code = call.request_id, time.perf_counter(), GOING_AWAY
    try:
        subprotocol = SUBPROTOCOL if SUBPROTOCOL in websocket.scope["subprotocols"] else None
        await websocket.accept(subprotocol, call.headers())
        await _run(websocket, service)
        code = await _close(websocket, NORMAL)
    except ClientLeft as error:
        code = getattr(websocket.state, CLOSE_CODE, GOING_AWAY)
        service.metrics.rejected.labels(CUT_OFF.get(code, error).slug).inc()
        forget_frames(error)
    except ServiceError as error:
        service.metrics.rejected.labels(error.slug).inc()
        forget_frames(error)
        code = await _close(websocket, _close_code(error), error.problem(request_id))
    except Exception:
        service.metrics.rejected.labels(InternalError.slug).inc()
        log.exception("stream %s failed", request_id)
        failure = InternalError("stream")
        code = await _close(websocket, INTERNAL_ERROR, failure.problem(request_id))
    finally:
        call.ended({"pranet.close_code": code}, failed=code == INTERNAL_ERROR)
        seconds = time.perf_counter() - began
        service.metrics.requests.labels("websocket", str(code)).inc()
        service.metrics.request_duration.labels("websocket").observe(seconds)
        log.info("websocket stream %d %.1f ms id=%s", code, seconds * 1e3, request_id)


async def _run(websocket: WebSocket, service: Service) -> None:
    service.readiness.check()
    messages = _messages(websocket, service.settings.max_message_bytes)
    options = stream_options(await service.streams.first(messages), service.settings.threshold)

    async def frames() -> AsyncIterator[Frame]:
        async for message in messages:
            if isinstance(message, str):
                if parsed(message) != {"end": True}:
                    raise InvalidRequest('the text is no end of the stream; send binary frames, or {"end": true}')
                return
            yield unpack(message)

    async def send(answer: Answer) -> None:
        try:
            await websocket.send_bytes(pack(answer))
        except (WebSocketDisconnect, RuntimeError) as error:
            raise ClientLeft("the client closed the connection") from error

    with service.streams.open(options) as opened:
        await opened.run(frames(), send)


async def _messages(websocket: WebSocket, max_bytes: int) -> AsyncIterator[str | bytes]:
    while (message := await websocket.receive())["type"] != "websocket.disconnect":
        data = message.get("bytes")
        data = message["text"] if data is None else data
        if len(data) > max_bytes:
            raise TooManyBytes.of_message(len(data), max_bytes)
        yield data
    if message["code"] in CUT_OFF:
        setattr(websocket.state, CLOSE_CODE, message["code"])
    raise ClientLeft("the client closed the connection")


def _close_code(error: ServiceError) -> int:
    if error.status == 503:
        return GOING_AWAY
    if error.status == 413:
        return TOO_BIG
    if error.retry_after is not None:
        return TRY_AGAIN_LATER
    return INTERNAL_ERROR if error.status >= 500 else PROTOCOL_ERROR


async def _close(websocket: WebSocket, code: int, problem: dict[str, Any] | None = None) -> int:
    gone = (WebSocketDisconnect, RuntimeError, asyncio.CancelledError, TimeoutError)
    with contextlib.suppress(*gone):  # it may be closed already, or not be read
        async with asyncio.timeout(CLOSE_SECONDS):
            if problem and websocket.application_state.name == "CONNECTED":
                await websocket.send_text(json.dumps(problem))
            await websocket.close(code)
    return code
