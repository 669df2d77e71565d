"""Streams over WebSocket, message by message."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from service.rest.websocket_messages import LENGTH
from tests.support.pictures import encoded, red_box
from tests.support.serving import PATIENCE, Running

PICTURE = encoded(red_box(64, 48, (16, 12, 48, 36)))
EVERY = json.dumps({"policy": "every"})
END = json.dumps({"end": True})


def packed(number: int, payload: bytes = PICTURE, **head: Any) -> bytes:
    text = json.dumps({"frame_id": number, **head}).encode()
    return LENGTH.pack(len(text)) + text + payload


def unpacked(message: str | bytes) -> tuple[dict[str, Any], bytes]:
    assert isinstance(message, bytes)
    end = LENGTH.size + LENGTH.unpack_from(message)[0]
    return json.loads(message[LENGTH.size : end]), message[end:]


@asynccontextmanager
async def opened(it: Running, **headers: str) -> AsyncIterator[ClientConnection]:
    address = f"ws://127.0.0.1:{it.port}/stream"
    async with asyncio.timeout(PATIENCE), connect(address, additional_headers=headers, proxy=None) as socket:
        yield socket


async def last_words(socket: ClientConnection) -> tuple[int, list[dict[str, Any]]]:
    """Return the close code, and the texts that came before it."""
    texts = []
    try:
        while True:
            message = await socket.recv()
            if isinstance(message, str):
                texts.append(json.loads(message))
    except ConnectionClosed as closed:
        return (closed.rcvd.code if closed.rcvd else 1006), texts
