"""The same short request over each transport, and one answer for all: "ok", or the cause why not."""

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.http11 import Response
from websockets.typing import Subprotocol

from pranet_client.credentials import Access
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc
from service.rest.websocket_messages import LENGTH
from tests.support.pictures import encoded, red_box
from tests.support.serving import Running

PICTURE = encoded(red_box(64, 48, (16, 12, 48, 36)))
LOST_STATUS = "Internal error from Core"  # what this client says if a call is refused at the moment it writes
UNREACHABLE = "unreachable"
LOST = (ssl.SSLError, ConnectionError, EOFError, InvalidMessage, ConnectionClosed)

Ask = Callable[[Running, Access], Awaitable[str]]


def cause(problem_type: str) -> str:
    return problem_type.removeprefix("urn:pranet:error:")


async def rest(it: Running, access: Access) -> str:
    async with access.http(f"{'https' if access.ca else 'http'}://127.0.0.1:{it.port}") as client:
        try:
            answer = await client.post("/segment", content=PICTURE)
        except httpx.TransportError:
            return UNREACHABLE
    if answer.is_success:
        return "ok"
    assert answer.headers["content-type"] == "application/problem+json"
    assert ("retry-after" in answer.headers) == (answer.status_code == 429)
    assert ("www-authenticate" in answer.headers) == (answer.status_code == 401)
    return cause(answer.json()["type"])


def _why(error: grpc.aio.AioRpcError) -> str:
    metadata = dict(error.trailing_metadata() or ())
    assert ("retry-after" in metadata) == (error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED)
    return str(metadata.get("pranet-error", UNREACHABLE))


async def grpc_unary(it: Running, access: Access) -> str:
    async with access.channel(f"127.0.0.1:{it.grpc_port}") as channel:
        try:
            request = pb.SegmentRequest(image=PICTURE)
            await pb_grpc.SegmentationServiceStub(channel).Segment(request, metadata=access.metadata())
        except grpc.aio.AioRpcError as error:
            return _why(error)
    return "ok"


async def grpc_stream(it: Running, access: Access) -> str:
    async with access.channel(f"127.0.0.1:{it.grpc_port}") as channel:
        sent = [
            pb.StreamRequest(config=pb.StreamConfig(policy=pb.POLICY_EVERY)),
            pb.StreamRequest(frame=pb.StreamFrame(frame_id=1, image=PICTURE)),
        ]
        stub = pb_grpc.SegmentationServiceStub(channel)
        try:
            async for _ in stub.SegmentStream(iter(sent), metadata=access.metadata()):
                pass
        except grpc.aio.AioRpcError as error:
            if error.details() == LOST_STATUS:
                return await grpc_stream(it, access)
            return _why(error)
    return "ok"


@asynccontextmanager
async def socket(it: Running, access: Access, *, by_header: bool, **options: Any) -> AsyncIterator[ClientConnection]:
    """Open a WebSocket, with the token as header, or as browsers do it."""
    offered = [Subprotocol("pranet.v1"), *([Subprotocol(f"pranet.bearer.{access.token}")] if access.token else [])]
    async with connect(
        f"{'wss' if access.ca else 'ws'}://127.0.0.1:{it.port}/stream",
        additional_headers=access.metadata() if by_header else None,
        subprotocols=None if by_header else offered,
        ssl=access._context() if access.ca else None,
        proxy=None,
        max_size=None,
        **options,
    ) as opened:
        assert opened.subprotocol == (None if by_header else "pranet.v1")  # never the token
        yield opened


def _refusal(response: Response) -> str:
    assert ("www-authenticate" in response.headers) == (response.status_code == 401)
    assert ("retry-after" in response.headers) == (response.status_code == 429)
    return cause(json.loads(response.body or b"")["type"])


async def _websocket(it: Running, access: Access, *, by_header: bool) -> str:
    try:
        async with socket(it, access, by_header=by_header) as opened:
            head = json.dumps({"frame_id": 1}).encode()
            await opened.send(json.dumps({"policy": "every"}))
            await opened.send(LENGTH.pack(len(head)) + head + PICTURE)
            await opened.recv()
    except InvalidStatus as refused:
        return _refusal(refused.response)
    except LOST:
        return UNREACHABLE
    return "ok"


async def websocket_header(it: Running, access: Access) -> str:
    return await _websocket(it, access, by_header=True)


async def websocket_subprotocol(it: Running, access: Access) -> str:
    return await _websocket(it, access, by_header=False)


TRANSPORTS: tuple[Ask, ...] = (rest, grpc_unary, grpc_stream, websocket_header, websocket_subprotocol)
