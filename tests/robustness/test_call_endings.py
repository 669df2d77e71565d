"""What a call's client or the transport ends is counted, each once, as the service can know it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from websockets.asyncio.client import connect

from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from service.rpc import messages
from tests.support.patching import patching
from tests.support.pictures import encoded, red_box
from tests.support.serving import PATIENCE, counted, until
from tests.support.streaming import CONFIG, Held, held
from tests.support.websocket import opened

PICTURE = encoded(red_box(64, 48, (8, 8, 40, 40)))
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
SEGMENT = "/pranet.v1.SegmentationService/Segment"
LARGE = 3 * 2**20  # of a message, where the transport cuts off at about 2 MiB


@pytest.fixture
async def hold() -> AsyncIterator[Held]:
    async with held(max_image_bytes=2**20) as hold:
        yield hold


async def status(call: Awaitable[object]) -> grpc.StatusCode:
    try:
        async with asyncio.timeout(PATIENCE):
            await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def no_message(hold: Held) -> None:
    assert await status(hold.it.channel.stream_unary(SEGMENT)(iter(()))) is grpc.StatusCode.INVALID_ARGUMENT


async def a_message_that_the_transport_cuts_off(hold: Held) -> None:
    assert await status(hold.stub.Segment(pb.SegmentRequest(image=bytes(LARGE)))) is grpc.StatusCode.RESOURCE_EXHAUSTED


async def a_message_of_a_stream_that_the_transport_cuts_off(hold: Held) -> None:
    large = pb.StreamRequest(frame=pb.StreamFrame(image=bytes(LARGE)))
    call = hold.stub.SegmentStream(iter([CONFIG, large]))
    assert await status(anext(aiter(call))) is grpc.StatusCode.RESOURCE_EXHAUSTED


async def more_metadata_than_the_transport_takes(hold: Held) -> None:
    call = hold.stub.Segment(pb.SegmentRequest(image=PICTURE), metadata=[("x-long", "b" * 40_000)])
    assert await status(call) is grpc.StatusCode.RESOURCE_EXHAUSTED


async def leaves_before_its_message(hold: Held) -> None:
    call = hold.it.channel.stream_unary(SEGMENT)()
    await call.wait_for_connection()
    await until(lambda: bool(hold.it.service.calls.unanswered))
    call.cancel()


async def leaves_at_work(hold: Held) -> None:
    call = hold.stub.Segment(pb.SegmentRequest(image=PICTURE))
    working = asyncio.ensure_future(status(call))
    await hold.predictor.has_begun()
    call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working


async def leaves_a_stream(hold: Held) -> None:
    call = hold.stub.SegmentStream()
    await call.write(CONFIG)
    await until(lambda: hold.it.service.streams.active == 1)
    call.cancel()


async def has_no_more_time(hold: Held) -> None:
    call = hold.stub.Segment(pb.SegmentRequest(image=PICTURE), timeout=1)
    assert await status(call) is grpc.StatusCode.DEADLINE_EXCEEDED


async def has_no_more_time_at_the_end_of_the_work(hold: Held) -> None:
    def late(*given: Any) -> pb.SegmentResponse:
        while time.monotonic() < end:  # nothing else runs, so that nobody hears of the deadline
            pass
        return pb.SegmentResponse()

    with patching() as patched:
        patched(messages, "response", late)
        hold.open()
        end = time.monotonic() + 1.2
        assert await status(hold.stub.Segment(pb.SegmentRequest(image=PICTURE), timeout=1)) is DEADLINE_EXCEEDED


async def has_no_more_time_for_its_message(hold: Held) -> None:
    assert await status(hold.it.channel.stream_unary(SEGMENT)(timeout=1)) is grpc.StatusCode.DEADLINE_EXCEEDED


async def has_no_more_time_for_its_stream(hold: Held) -> None:
    call = hold.stub.SegmentStream(timeout=1)
    assert await status(anext(aiter(call))) is grpc.StatusCode.DEADLINE_EXCEEDED


async def leaves_a_websocket(hold: Held) -> None:
    async with opened(hold.it) as socket:
        await socket.send("{}")


async def sends_a_websocket_more_than_the_transport_takes(hold: Held) -> None:
    async with opened(hold.it) as socket:
        await socket.send("{}")
        await socket.send(bytes(LARGE))
        await socket.wait_closed()
        assert socket.close_code == 1009


async def sends_a_websocket_what_is_no_frame(hold: Held) -> None:
    async with connect(f"ws://127.0.0.1:{hold.it.port}/stream", proxy=None) as socket:
        socket.transport.write(b"\xff\xff\xff\xff")
        await socket.wait_closed()
        assert socket.close_code == 1002


async def sends_a_websocket_what_is_no_text(hold: Held) -> None:
    async with opened(hold.it) as socket:
        await socket.send(b"\xff", text=True)
        await socket.wait_closed()
        assert socket.close_code == 1007


ENDINGS: dict[Callable[[Held], Awaitable[None]], tuple[str, str, str]] = {
    no_message: ("grpc", "INVALID_ARGUMENT", "invalid-request"),
    a_message_that_the_transport_cuts_off: ("grpc", "CANCELLED", "client-left"),
    a_message_of_a_stream_that_the_transport_cuts_off: ("grpc-stream", "CANCELLED", "client-left"),
    more_metadata_than_the_transport_takes: ("grpc", "CANCELLED", "client-left"),
    leaves_before_its_message: ("grpc", "CANCELLED", "client-left"),
    leaves_at_work: ("grpc", "CANCELLED", "client-left"),
    leaves_a_stream: ("grpc-stream", "CANCELLED", "client-left"),
    has_no_more_time: ("grpc", "DEADLINE_EXCEEDED", "deadline-exceeded"),
    has_no_more_time_at_the_end_of_the_work: ("grpc", "DEADLINE_EXCEEDED", "deadline-exceeded"),
    has_no_more_time_for_its_message: ("grpc", "DEADLINE_EXCEEDED", "deadline-exceeded"),
    has_no_more_time_for_its_stream: ("grpc-stream", "DEADLINE_EXCEEDED", "deadline-exceeded"),
    leaves_a_websocket: ("websocket", "1001", "client-left"),
    sends_a_websocket_more_than_the_transport_takes: ("websocket", "1009", "too-many-bytes"),
    sends_a_websocket_what_is_no_frame: ("websocket", "1002", "invalid-request"),
    sends_a_websocket_what_is_no_text: ("websocket", "1007", "invalid-request"),
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_an_ending_is_counted_once_by_code_and_cause(
    hold: Held, ending: Callable[[Held], Awaitable[None]]
) -> None:
    transport, code, cause = ENDINGS[ending]
    await ending(hold)
    await until(lambda: bool(counted(hold.it)[0]))
    assert counted(hold.it) == ({(transport, code): 1}, {cause: 1})
