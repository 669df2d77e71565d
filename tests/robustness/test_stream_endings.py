"""How a stream may end, at each point of its life."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import grpc
import numpy as np
import pytest
from PIL import Image

from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc
from service.rpc import server as rpc
from service.runtime import Phase
from tests.support.patching import Patches
from tests.support.pictures import encoded
from tests.support.servers.black_hole import Loss, black_hole
from tests.support.serving import PATIENCE, serving, until
from tests.support.streaming import CONFIG, NARROW, Call, Held, check_identity, frame, held, reached, status

SETTLED_SECONDS = 0.2  # without a change, after which nothing moves any more
NOISE = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)))


async def before_configuration(hold: Held, call: Call) -> None:
    await asyncio.sleep(0)


async def waiting_for_frames(hold: Held, call: Call) -> None:
    await call.write(CONFIG)
    await reached(call, lambda: hold.it.service.streams.active == 1)


async def waiting_encoded(hold: Held, call: Call) -> None:
    await inferring(hold, call)
    await call.write(frame(1))
    await reached(call, lambda: hold.received == 2)


async def decoding(hold: Held, call: Call) -> None:
    hold.hold_decoding()
    await call.write(CONFIG)
    await call.write(frame(0))
    await reached(call, hold.decoding.is_set)


async def inferring(hold: Held, call: Call) -> None:
    await call.write(CONFIG)
    await call.write(frame(0))
    await hold.predictor.has_begun()


async def answering(hold: Held, call: Call) -> None:
    """Bring the service to where it writes more than the client's side takes unread."""
    hold.open()
    await call.write(pb.StreamRequest(config=pb.StreamConfig(output=pb.OUTPUT_OVERLAY)))
    await call.write(frame(0, image=NOISE))
    await reached(call, lambda: hold.predictor.frames == 1 and not hold.it.service.segmenter.in_flight)
    await asyncio.sleep(SETTLED_SECONDS)
    assert hold.answered == 0  # or this is not the state that it is said to be


STATES = [before_configuration, waiting_for_frames, waiting_encoded, decoding, inferring, answering]
Reach = Callable[[Held, Call], Awaitable[None]]


@pytest.mark.parametrize("reach", STATES)
async def test_a_cancelled_call_leaves_nothing_behind(reach: Reach, caplog: pytest.LogCaptureFixture) -> None:
    async with held() as hold:
        call = hold.stub.SegmentStream()
        await reach(hold, call)
        call.cancel()
        assert (await status(call))[0] is grpc.StatusCode.CANCELLED
        await hold.nothing_left()
    assert not [line for line in caplog.records if line.levelno >= logging.ERROR]


@pytest.mark.parametrize("reach", STATES)
async def test_a_calls_own_deadline_ends_it_and_leaves_nothing_behind(reach: Reach) -> None:
    async with held() as hold:
        call = hold.stub.SegmentStream(timeout=2)
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError, asyncio.InvalidStateError):
            await reach(hold, call)  # a slow machine may come less far
        assert (await status(call))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        await hold.nothing_left()


@pytest.mark.parametrize("reach", STATES)
async def test_when_the_service_stops_accepted_frames_are_answered_and_the_stream_ends_as_unavailable(
    reach: Reach,
) -> None:
    async with held() as hold:
        call = hold.stub.SegmentStream()
        await reach(hold, call)
        hold.it.service.readiness.enter(Phase.DRAINING)
        hold.it.service.streams.drain()
        hold.open()
        answers = 0
        with contextlib.suppress(grpc.aio.AioRpcError):
            async with asyncio.timeout(PATIENCE):
                async for _ in call:
                    answers += 1
        assert await status(call) == (grpc.StatusCode.UNAVAILABLE, "draining")
        assert answers == hold.received
        await hold.nothing_left()


async def with_all_answers_taken(call: Call) -> None:
    await call.write(CONFIG)
    await call.write(frame(0))
    await call.read()


async def with_an_answer_that_is_being_written(call: Call) -> None:
    await call.write(pb.StreamRequest(config=pb.StreamConfig(output=pb.OUTPUT_OVERLAY)))
    await call.write(frame(0, image=NOISE))


@pytest.mark.parametrize("reach", [with_all_answers_taken, with_an_answer_that_is_being_written])
@pytest.mark.parametrize("loss", Loss)
async def test_a_stream_whose_peer_vanished_is_cleaned_up_by_keepalive(
    loss: Loss,
    reach: Callable[[Call], Awaitable[None]],
    patched: Patches,
    caplog: pytest.LogCaptureFixture,
) -> None:
    patched(rpc, "KEEPALIVE_SECONDS", 1.0)
    patched(rpc, "KEEPALIVE_TIMEOUT_SECONDS", 0.5)
    async with (
        serving() as it,
        black_hole(it.grpc_port, loss) as (port, gone),
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", NARROW) as channel,
    ):
        call: Call = pb_grpc.SegmentationServiceStub(channel).SegmentStream()
        await reach(call)
        await until(lambda: it.service.streams.active == 1 and not it.service.segmenter.in_flight)
        gone.set()
        await until(lambda: not it.service.calls.unanswered)
        check_identity(it)
    assert not [line for line in caplog.records if line.levelno >= logging.ERROR]


def pinging(seconds: float) -> list[tuple[str, int]]:
    """Return the options of a client that sends a ping at this interval, also while nothing else is sent."""
    return [
        ("grpc.keepalive_time_ms", round(seconds * 1e3)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.use_local_subchannel_pool", 1),  # a connection of its own
    ]


async def test_a_client_that_pings_every_second_keeps_its_idle_stream() -> None:
    async with serving() as it, grpc.aio.insecure_channel(f"127.0.0.1:{it.grpc_port}", pinging(1)) as channel:
        call: Call = pb_grpc.SegmentationServiceStub(channel).SegmentStream()
        await with_all_answers_taken(call)
        await asyncio.sleep(5)  # gRPC's server ends the connection with the third ping that comes too early
        await call.write(frame(1))
        answer = await call.read()
        assert isinstance(answer, pb.StreamResponse)
        assert answer.frame_id == 1


async def test_a_client_that_pings_more_often_than_is_allowed_is_disconnected(patched: Patches) -> None:
    patched(rpc, "CLIENT_PING_SECONDS", 5.0)
    async with serving() as it, grpc.aio.insecure_channel(f"127.0.0.1:{it.grpc_port}", pinging(1)) as channel:
        call: Call = pb_grpc.SegmentationServiceStub(channel).SegmentStream()
        await with_all_answers_taken(call)
        async with asyncio.timeout(PATIENCE):
            assert await call.code() is grpc.StatusCode.UNAVAILABLE
