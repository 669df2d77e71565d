"""Streams whose service goes away, or whose frames it never takes."""

import asyncio
from collections.abc import AsyncIterator
from time import monotonic

import grpc
import pytest

from pranet_client import connection
from pranet_client.async_client import AsyncClient
from pranet_client.connection import Reply
from pranet_client.errors import RequestFailed
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pictures import VideoFrame
from tests.support.patching import Patches
from tests.support.pictures import encoded, red_box
from tests.support.predictors import GatedPredictor
from tests.support.serving import PATIENCE, free_port, serving

PICTURE = encoded(red_box(64, 48, (16, 12, 48, 36)))


async def frames(*pictures: bytes) -> AsyncIterator[VideoFrame]:
    for number, picture in enumerate(pictures):
        yield VideoFrame(number, picture, monotonic())


async def streamed(port: int, policy: pb.Policy, *pictures: bytes) -> list[Reply]:
    async with asyncio.timeout(PATIENCE), AsyncClient(target=f"127.0.0.1:{port}") as client:
        return [reply async for reply in client.stream(frames(*pictures), pb.StreamConfig(policy=policy))]


@pytest.mark.parametrize("size", [200_000, 500_000])  # above what is taken, and above what the transport takes
async def test_a_frame_that_is_too_large_ends_the_stream_instead_of_being_sent_for_ever(size: int) -> None:
    async with serving(max_image_bytes=100_000) as it:
        with pytest.raises(RequestFailed, match=r"too-many-bytes|resource_exhausted"):
            await streamed(it.grpc_port, pb.POLICY_EVERY, PICTURE, bytes(size))


async def test_a_stream_ends_once_each_of_its_frames_has_its_reply_though_the_service_stays_away() -> None:
    predictor, port = GatedPredictor(), free_port()
    async with serving(predictor, grpc_port=port):
        streaming = asyncio.create_task(streamed(port, pb.POLICY_LATEST, PICTURE))
        await predictor.has_begun()
    predictor.open()
    assert [reply.outcome for reply in await streaming] == ["lost"]


async def test_a_frame_without_a_reply_is_sent_again_to_the_service_that_comes_back() -> None:
    predictor, port = GatedPredictor(), free_port()
    async with serving(predictor, grpc_port=port, max_batch_size=1):
        streaming = asyncio.create_task(streamed(port, pb.POLICY_EVERY, PICTURE, PICTURE))
        predictor.permits.release()
        for _ in range(2):
            await predictor.has_begun()  # the second frame is at work when the service goes
    predictor.open()
    async with serving(grpc_port=port):
        replies = await streaming
    assert [(reply.frame.frame_id, reply.outcome) for reply in replies] == [(0, "answered"), (1, "answered")]


@pytest.mark.parametrize("policy", [pb.POLICY_LATEST, pb.POLICY_EVERY])
async def test_a_refusal_whose_status_grpc_lost_is_asked_for_again(policy: pb.Policy, patched: Patches) -> None:
    """On a busy machine, grpcio reports one refusal in a hundred as an error of its own."""
    real, lost = connection.Connection.replies, []

    async def replies(self: connection.Connection) -> AsyncIterator[Reply]:
        try:
            async for reply in real(self):
                yield reply
        except grpc.aio.AioRpcError as error:
            if lost:
                raise
            lost.append(error.code())
            nothing = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, nothing, nothing, "Internal error from Core") from None

    patched(connection.Connection, "replies", replies)
    config = pb.StreamConfig(policy=policy, threshold=7)
    async with serving() as it, AsyncClient(target=f"127.0.0.1:{it.grpc_port}") as client:
        with pytest.raises(RequestFailed, match="threshold is 7"):
            [reply async for reply in client.stream(frames(PICTURE), config)]
    assert lost == [grpc.StatusCode.INVALID_ARGUMENT]
