"""Streams whose service goes away, or whose frames it never takes, and streams whose caller is slow."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from time import monotonic

import grpc
import pytest

from pranet_client import backlog, connection
from pranet_client.async_client import AsyncClient
from pranet_client.backlog import MOST_OPEN, MOST_UNREAD, Backlog
from pranet_client.connection import Reply, to_sent
from pranet_client.errors import RequestFailed
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pictures import VideoFrame
from pranet_client.reconnection import Reconnection, is_final, request_failed
from service.observability.metrics import OUTCOMES
from service.streams.frame import Drop
from tests.support.patching import Patches
from tests.support.pictures import encoded, red_box
from tests.support.predictors import GatedPredictor
from tests.support.serving import PATIENCE, Running, free_port, serving, until

PICTURE = encoded(red_box(64, 48, (16, 12, 48, 36)))
POLICIES = [pb.POLICY_LATEST, pb.POLICY_EVERY]


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


@pytest.mark.parametrize("policy", POLICIES)
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


def test_a_call_whose_status_grpc_lost_is_said_to_have_no_answer() -> None:
    nothing = grpc.aio.Metadata()
    lost = grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, nothing, nothing, "Internal error from Core")
    with pytest.raises(RequestFailed, match=r"unreachable: the call to there:8001 ended without .*; try again"):
        Reconnection("there:8001", until=0).failed(lost)


@pytest.mark.parametrize(("cause", "again"), [("draining", True), ("invalid-parameter", False)])
def test_a_refusal_whose_status_a_proxy_changed_is_judged_by_its_metadata(cause: str, again: bool) -> None:
    metadata = grpc.aio.Metadata(("pranet-error", cause), *([("retry-after", "2")] if again else []))
    cancelled = grpc.aio.AioRpcError(grpc.StatusCode.CANCELLED, grpc.aio.Metadata(), metadata, "Stream removed")
    assert is_final(cancelled) is not again
    failed = request_failed("127.0.0.1:8001", cancelled)
    assert failed.cause == cause
    assert "a proxy lost its message" in failed.detail


async def test_a_frame_that_a_newer_service_drops_for_an_unknown_reason_is_dropped_and_the_stream_goes_on(
    patched: Patches,
) -> None:
    predictor = GatedPredictor()

    async def frames() -> AsyncIterator[VideoFrame]:
        yield VideoFrame(0, PICTURE, monotonic())
        await predictor.has_begun()
        yield VideoFrame(1, PICTURE, monotonic())
        yield VideoFrame(2, PICTURE, monotonic())
        await until(lambda: it.metric("pranet_frames_received_total", {"slot": "0"}) == 3)
        predictor.open()

    patched("service.rpc.messages", "DROP_REASONS", {Drop.STALE: 99})
    async with serving(predictor) as it, AsyncClient(target=f"127.0.0.1:{it.grpc_port}") as client:
        outcomes = [reply.outcome async for reply in client.stream(frames())]
    assert outcomes == ["answered", "dropped", "answered"]


class Camera:
    """Yields frames, each as soon as there is a permit for it, and counts them."""

    def __init__(self, frames: int, permits: int = 10**6) -> None:
        self.frames = frames
        self.permits = asyncio.Semaphore(permits)
        self.read = self.replies = self.most_open = 0

    async def __aiter__(self) -> AsyncIterator[VideoFrame]:
        for number in range(self.frames):
            await self.permits.acquire()
            self.read += 1
            self.most_open = max(self.most_open, self.read - self.replies)
            yield VideoFrame(number, PICTURE, monotonic())


async def idle(it: Running) -> None:
    """Wait until the service has answered what it has received."""

    def unanswered() -> float:
        answered = sum(it.metric("pranet_frames_total", {"slot": "0", "outcome": name}) for name in OUTCOMES)
        return it.metric("pranet_frames_received_total", {"slot": "0"}) - answered

    await until(lambda: not unanswered())


@pytest.mark.parametrize("policy", POLICIES)
async def test_of_a_slow_caller_few_frames_are_read_ahead_and_each_has_its_reply_in_order(
    policy: pb.Policy, patched: Patches
) -> None:
    patched(backlog, "MOST_OPEN_LIVE", MOST_OPEN)
    camera = Camera(150)
    seen: list[Reply] = []
    async with serving() as it, AsyncClient(target=f"127.0.0.1:{it.grpc_port}") as client:
        async for reply in client.stream(camera, pb.StreamConfig(policy=policy)):
            camera.replies += 1
            seen.append(reply)
            await idle(it)
    assert camera.most_open <= MOST_OPEN + 2  # one is in the reader's hands, and one waits to be sent
    assert [reply.frame.frame_id for reply in seen] == list(range(camera.frames))
    assert {reply.outcome for reply in seen} <= ({"answered"} if policy == pb.POLICY_EVERY else {"answered", "stale"})


async def test_a_caller_slower_than_a_camera_sees_masks_of_new_frames() -> None:
    """It needs the time of five frames for each mask."""
    camera = Camera(160, permits=1)
    ids: list[int] = []
    lags: list[int] = []  # frames that the camera has taken since that of the mask

    def may_read() -> int:  # before the client may let the camera wait
        return min(camera.frames, len(ids) + MOST_UNREAD)

    async with serving() as it, AsyncClient(target=f"127.0.0.1:{it.grpc_port}") as client:
        async for reply in client.stream(camera):
            ids.append(reply.frame.frame_id)
            if reply.mask is None:
                continue
            lags.append(camera.read - reply.frame.frame_id)
            for _ in range(5):
                camera.permits.release()
                await until(lambda: camera.permits.locked() or camera.read >= may_read())
                await idle(it)
    assert ids == list(range(camera.frames))
    assert len(lags) >= 16
    assert max(lags) <= 30, lags


async def test_a_camera_is_read_while_the_service_is_slow() -> None:
    """All frames behind the one that is computed are without a reply."""
    predictor, camera = GatedPredictor(), Camera(200)
    async with serving(predictor) as it, AsyncClient(target=f"127.0.0.1:{it.grpc_port}") as client:

        async def stream() -> list[str]:
            return [reply.outcome async for reply in client.stream(camera)]

        streaming = asyncio.create_task(stream())
        await predictor.has_begun()
        await until(lambda: camera.read == camera.frames)
        predictor.open()
        assert (await streaming)[-1] == "answered"


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_slow_caller_has_every_reply_in_order_also_over_a_broken_connection(policy: pb.Policy) -> None:
    camera, port = Camera(100), free_port()
    async with AsyncClient(target=f"127.0.0.1:{port}") as client, asyncio.timeout(PATIENCE):
        replies = client.stream(camera, pb.StreamConfig(policy=policy))
        async with serving(grpc_port=port) as it:
            seen = [await anext(replies)]
            await until(lambda: it.metric("pranet_frames_total", {"slot": "0", "outcome": "answered"}) > 1)
        async with serving(grpc_port=port):
            seen += [reply async for reply in replies]
    assert [reply.frame.frame_id for reply in seen] == list(range(camera.frames))
    assert {reply.outcome for reply in seen} <= (
        {"answered"} if policy == pb.POLICY_EVERY else {"answered", "stale", "lost"}
    )


async def test_a_live_frame_that_waits_without_a_connection_gives_way_to_a_newer_one(patched: Patches) -> None:
    patched(backlog, "WAIT_SECONDS", 0.01)
    live, recording = Backlog(newest_only=True), Backlog(newest_only=False)
    frames = [to_sent(encoded(red_box(8, 8, (0, 0, 4, 4))), number) for number in range(6)]
    await recording.put(frames[4])
    second = asyncio.create_task(recording.put(frames[5]))
    async with asyncio.timeout(PATIENCE):
        for each in frames[:4]:
            await live.put(each)
    assert [reply.outcome for reply in iter(live.taken, None)] == ["stale"] * 3
    assert await live.next(lambda: False) is frames[3]
    assert not second.done()
    assert await recording.next(lambda: False) is frames[4]
    await second
    assert await recording.next(lambda: False) is frames[5]


async def test_in_an_outage_every_frame_of_a_camera_is_read_and_none_gets_old(patched: Patches) -> None:
    """A source may keep what is not read, and deliver it when it is old."""
    patched(backlog, "WAIT_SECONDS", PATIENCE / 10)
    live, frames = Backlog(newest_only=True), [to_sent(PICTURE, number) for number in range(MOST_OPEN)]
    await live.put(frames[0])
    reading = asyncio.create_task(live.put(frames[1]))
    await asyncio.sleep(0)
    assert not reading.done()  # a short gap costs no frame
    async with asyncio.timeout(PATIENCE):
        await reading
        for each in frames[2:]:
            await live.put(each)
            assert live.taken()
    assert await live.next(lambda: False) is frames[-1]


async def test_a_connection_that_asks_keeps_a_frame_from_being_replaced(patched: Patches) -> None:
    patched(backlog, "WAIT_SECONDS", 0)
    live, frames = Backlog(newest_only=True), [to_sent(PICTURE, number) for number in range(MOST_OPEN)]
    for _ in range(10):
        await asyncio.sleep(0)  # no connection is there yet
    asking = asyncio.create_task(live.next(lambda: False))
    await asyncio.sleep(0)
    for each in frames[:2]:
        await live.put(each)
    assert await asking is frames[0]
    assert frames[0].reply is None


async def test_a_caller_that_takes_few_replies_still_has_frames_sent(patched: Patches) -> None:
    """The replies of replaced frames would otherwise fill all the room."""
    patched(backlog, "WAIT_SECONDS", 0)
    live, frames = Backlog(newest_only=True), [to_sent(PICTURE, number) for number in range(MOST_OPEN)]

    async def read() -> None:
        for frame in frames:
            await live.put(frame)

    reading = asyncio.create_task(read())
    async with asyncio.timeout(PATIENCE):
        await until(lambda: sum(frame.reply is not None for frame in frames) >= MOST_UNREAD)
        sending = asyncio.create_task(live.next(lambda: False))
        while not sending.done():
            assert live.taken()
            for _ in range(10):
                await asyncio.sleep(0)
    assert sending.result() is not frames[-1]
    reading.cancel()


async def test_a_network_that_stands_still_does_not_keep_a_camera_from_being_read(patched: Patches) -> None:
    """Frames that were replaced behind one without a reply are no replies that the caller could take."""
    patched(backlog, "WAIT_SECONDS", 0)
    live, frames = Backlog(newest_only=True), [to_sent(PICTURE, number) for number in range(MOST_OPEN)]
    async with asyncio.timeout(PATIENCE):
        await live.put(frames[0])
        assert await live.next(lambda: False) is frames[0]  # sent, and never answered
        for each in frames[1:]:
            await live.put(each)
    assert sum(frame.reply is not None for frame in frames) == MOST_OPEN - 2
    assert live.taken() is None


async def test_a_caller_that_was_slow_for_its_first_mask_only_counts_as_quick_again() -> None:
    live, calling = Backlog(newest_only=True), asyncio.create_task(asyncio.Event().wait())
    async with asyncio.timeout(PATIENCE):
        for number in range(40):
            await live.put(to_sent(PICTURE, number))
            await live.next(lambda: False)
            live.unanswered.popleft().replied("answered")
            assert await live.take(calling)
            await asyncio.sleep(0.1 if number == 0 else 0)
        for number in range(2 * MOST_UNREAD):
            await live.put(to_sent(PICTURE, 40 + number))
            await live.next(lambda: False)
    assert len(live.unanswered) == 2 * MOST_UNREAD
    calling.cancel()


@pytest.mark.parametrize(("seconds", "most"), [(0, MOST_UNREAD), (100 * PATIENCE, MOST_OPEN - 1)])
async def test_of_a_caller_slow_for_every_reply_few_live_frames_are_with_the_service(
    seconds: float, most: int, patched: Patches
) -> None:
    """The service may answer all of them at once that they are stale."""
    patched(backlog, "BEHIND_SECONDS", seconds)  # every caller is slow, or none
    live, frames = Backlog(newest_only=True), [to_sent(PICTURE, number) for number in range(MOST_OPEN)]

    async def read() -> None:
        for frame in frames:
            await live.put(frame)

    async def send() -> None:
        while await live.next(lambda: False):
            pass

    async with asyncio.timeout(PATIENCE):
        calling = asyncio.create_task(asyncio.Event().wait())
        tasks = [calling, asyncio.create_task(send())]
        await live.put(frames.pop(0))
        await until(lambda: bool(live.unanswered))
        live.unanswered.popleft().replied("stale")
        assert await live.take(calling)
        tasks += [asyncio.create_task(live.take(calling)), asyncio.create_task(read())]
        for _ in range(20 * MOST_OPEN):
            await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    assert len(live.unanswered) == most


async def test_a_stream_reconnects_also_while_its_caller_has_replies_to_take(patched: Patches) -> None:
    patched(backlog, "WAIT_SECONDS", 0)
    camera, port = Camera(10**6), free_port()
    async with AsyncClient(target=f"127.0.0.1:{port}") as client, asyncio.timeout(PATIENCE):
        replies = client.stream(camera)
        async with serving(grpc_port=port):
            while (await anext(replies)).outcome != "answered":
                camera.replies += 1
        async with serving(grpc_port=port) as it, contextlib.aclosing(replies):
            while not it.metric("pranet_frames_received_total", {"slot": "0"}):
                await anext(replies)
                camera.replies += 1
                await until(lambda: camera.read > camera.replies + MOST_UNREAD)


async def test_what_was_answered_is_given_to_a_slow_caller_before_the_loss_of_the_service() -> None:
    camera, port = Camera(10**6), free_port()
    seen: list[Reply] = []
    answered = {"slot": "0", "outcome": "answered"}
    async with AsyncClient(target=f"127.0.0.1:{port}") as client, asyncio.timeout(PATIENCE):
        replies = client.stream(camera, pb.StreamConfig(policy=pb.POLICY_EVERY), until=monotonic())
        async with serving(grpc_port=port) as it:
            seen.append(await anext(replies))
            await until(lambda: it.metric("pranet_frames_total", answered) >= MOST_UNREAD)
        with contextlib.suppress(RequestFailed):
            async for reply in replies:
                seen.append(reply)
    assert len(seen) == it.metric("pranet_frames_total", answered)
