"""The end of the service waits for clients that read their answers."""

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc
from service import drain
from service.clients.awaited import READER
from service.rest import websocket as service_websocket
from tests.support.patching import Patches
from tests.support.predictors import GatedPredictor
from tests.support.serving import PATIENCE, Running, connected, counted, serving, until
from tests.support.slow_clients.reading import (
    ReadSlowly,
    answer_over_grpc,
    answer_over_rest,
    asked,
    read_slowly,
    relay,
    websocket,
)
from tests.support.slow_clients.sending import SHORT_SECONDS, SIDE, archive, meanwhile, noise, single
from tests.support.websocket import packed

Answered = Callable[[Running], AbstractAsyncContextManager[ReadSlowly]]

END = b"\r\n0\r\n\r\n"
SINGLE = pytest.mark.parametrize("answered", [answer_over_rest, answer_over_grpc])


def waits_for_its_reader(it: Running) -> bool:
    return any(call.awaited.what == READER for call in it.service.calls.unanswered.values())


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
async def test_a_drain_waits_for_who_reads_one_answer_slowly(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(PATIENCE), serving(drain_seconds=10 * PATIENCE) as it:
        async with asked(it, archive(1, SIDE)) as peer:
            await until(lambda: waits_for_its_reader(it))
            draining = asyncio.create_task(drain.drain(it.service))
            answer = b""
            while not answer.endswith(END) and (block := await loop.sock_recv(peer, 2**17)):
                answer = answer[-len(END) :] + block
                await asyncio.sleep(SHORT_SECONDS / 10)
        assert answer.endswith(END)
        assert await draining == 0
    assert "cut off" not in caplog.text


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
@SINGLE
async def test_a_drain_gives_up_who_does_not_read_a_single_answer(
    answered: Answered, caplog: pytest.LogCaptureFixture
) -> None:
    async with asyncio.timeout(PATIENCE), serving(drain_seconds=10 * PATIENCE) as it, answered(it):
        assert await drain.drain(it.service) == 0
    assert f"whose clients {READER}: 1;" in caplog.text


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
async def test_a_drain_waits_for_who_reads_a_single_answer(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        asyncio.timeout(PATIENCE),
        serving(drain_seconds=10 * PATIENCE) as it,
        answer_over_rest(it) as slowly,
        meanwhile(slowly()),
    ):
        assert await drain.drain(it.service) == 0
    assert "cut off" not in caplog.text


async def test_a_drain_waits_for_who_reads_an_answer_over_grpc() -> None:
    async with asyncio.timeout(PATIENCE), serving() as it, relay(it) as (channel, transport):
        transport.pause_reading()
        call = pb_grpc.SegmentationServiceStub(channel).Segment(
            pb.SegmentRequest(image=noise(100), output=pb.OUTPUT_OVERLAY)
        )
        await until(lambda: it.metric("pranet_requests_total", {"transport": "grpc", "code": "OK"}) == 1)
        await until(lambda: not it.service.calls.unanswered)
        draining = asyncio.create_task(drain.drain(it.service))
        asyncio.get_running_loop().call_later(SHORT_SECONDS, transport.resume_reading)
        assert await draining == 0
        assert transport.is_reading()
        assert (await call).png


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
@SINGLE
async def test_a_single_answer_that_is_read_for_longer_than_the_drain_counts_as_unanswered(
    answered: Answered, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        asyncio.timeout(PATIENCE),
        serving(drain_seconds=1) as it,
        answered(it) as slowly,
        meanwhile(slowly()),
    ):
        assert await drain.drain(it.service) == 1
    assert "cut off unanswered after 1 s: 1;" in caplog.text


@pytest.mark.slow
async def test_a_drain_waits_for_who_reads_an_answer_that_was_made_during_the_drain(patched: Patches) -> None:
    patched(drain, "LOOK_SECONDS", SHORT_SECONDS / 10)
    predictor = GatedPredictor()
    async with asyncio.timeout(PATIENCE), serving(predictor) as it, asked(it, single(SIDE)) as peer:
        await predictor.has_begun()
        looks = patched(drain, "open_connections")
        draining = asyncio.create_task(drain.drain(it.service))
        await until(lambda: looks.count > 2)
        predictor.open()
        await until(lambda: not it.service.calls.unanswered)
        seen = looks.count
        await until(lambda: looks.count > seen + 3)
        assert not draining.done()
        async with meanwhile(read_slowly(peer)):
            assert await draining == 0


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
async def test_a_client_that_stalls_counts_once_also_if_an_earlier_answer_took_the_same_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with asyncio.timeout(PATIENCE), serving() as it, connected(it) as (reader, writer):
        writer.write(single(100))
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.partition(b"content-length: ")[2].split()[0]))
        writer.transport.pause_reading()
        writer.write(archive(1, SIDE))
        await until(lambda: waits_for_its_reader(it))
        assert await drain.drain(it.service) == 0
    assert f"whose clients {READER}: 1;" in caplog.text


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
async def test_a_drain_gives_up_who_does_not_read_the_last_answers_of_a_websocket(
    patched: Patches, caplog: pytest.LogCaptureFixture
) -> None:
    patched(service_websocket, "CLOSE_SECONDS", SHORT_SECONDS / 10)
    async with asyncio.timeout(PATIENCE), serving(drain_seconds=10 * PATIENCE) as it, websocket(it) as opened:
        opened.transport.pause_reading()
        await opened.send(json.dumps({"output": "overlay"}))
        await opened.send(packed(0, noise(SIDE)))
        await until(lambda: it.metric("pranet_frames_total", {"slot": "0", "outcome": "answered"}) == 1)
        assert await drain.drain(it.service) == 0
        assert counted(it)[0] == {("websocket", "1001"): 1}
    assert f"whose clients {READER}: 1;" in caplog.text
