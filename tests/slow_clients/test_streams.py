"""Streams whose clients do not read their answers end, and so do calls whose message does not come."""

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import grpc
import pytest

from service.rpc import call as rpc_call
from tests.support.patching import Patches
from tests.support.serving import Running, serving, until
from tests.support.slow_clients.reading import stream_of_inferences, stream_over_grpc, stream_over_websocket
from tests.support.slow_clients.sending import SHORT_SECONDS
from tests.support.streaming import replies, status


async def given_up(it: Running) -> None:
    await until(lambda: it.metric("pranet_rejected_total", {"reason": "read-too-slowly"}) == 1)
    await until(lambda: not it.service.streams.active)


@pytest.mark.slow
@pytest.mark.parametrize("stream", [stream_over_grpc, stream_of_inferences, stream_over_websocket])
async def test_a_stream_whose_answers_are_not_read_ends(
    stream: Callable[[Running], AbstractAsyncContextManager[object]], caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as it, stream(it):
        await given_up(it)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.slow
async def test_who_reads_the_answers_of_a_grpc_stream_too_late_is_told_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as it, stream_over_grpc(it) as call:
        await given_up(it)
        with pytest.raises(grpc.RpcError):
            await replies(call)
        assert await status(call) == (grpc.StatusCode.DEADLINE_EXCEEDED, "read-too-slowly")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.slow
async def test_a_grpc_stream_whose_client_never_reads_does_not_hold_up_the_end_of_the_service(patched: Patches) -> None:
    patched(rpc_call, "STATUS_SECONDS", SHORT_SECONDS)
    async with serving() as it, stream_over_grpc(it) as call:
        await given_up(it)
        await until(lambda: not it.service.calls.unanswered)
        assert not call.done()


async def test_a_grpc_message_that_does_not_arrive_is_given_up() -> None:
    async with serving(request_timeout_ms=300) as it:
        call = it.channel.stream_unary("/pranet.v1.SegmentationService/Segment")()  # as if it sent its one message late
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert dict(refused.value.trailing_metadata() or ())["pranet-error"] == "body-too-slow"
