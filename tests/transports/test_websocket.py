import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from PIL import Image
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from service import drain
from service.http import server as http_server
from service.http.websocket_protocol import LOOSE_FRAMES, WebSocketProtocol
from service.options import StreamConfig
from service.rest.websocket_messages import LENGTH
from service.runtime import Phase
from tests.support.patching import Patches
from tests.support.pictures import encoded, mask_of
from tests.support.predictors import RedPredictor
from tests.support.servers.black_hole import Loss, black_hole
from tests.support.serving import PATIENCE, Running, serving, until
from tests.support.streaming import Held, check_identity, held
from tests.support.websocket import END, EVERY, PICTURE, last_words, opened, packed, unpacked


async def test_a_browser_gets_one_answer_for_every_frame_in_order() -> None:
    async with serving() as it, opened(it) as socket:
        await socket.send(EVERY)
        for number in range(10):
            await socket.send(packed(number, capture_time_us=number * 1000))
        await socket.send(END)
        answers = [unpacked(await socket.recv()) for _ in range(10)]
        assert [head["frame_id"] for head, _ in answers] == list(range(10))
        assert all(mask_of(mask).sum() == 32 * 24 for _, mask in answers)
        assert answers[0][0]["timings_ms"]["infer"] >= 0
        assert await last_words(socket) == (1000, [])


async def test_raw_frames_bad_frames_and_shapes_travel_too() -> None:
    layout = {"format": "rgb24", "width": 8, "height": 4, "stride": 24}
    async with serving() as it, opened(it) as socket:
        await socket.send(json.dumps({"policy": "every", "output": "json", "threshold": 0.4}))
        await socket.send(packed(1, b"\xff\x00\x00" * 32, raw=layout))
        await socket.send(packed(2, PICTURE[:60]))
        good, bad = [unpacked(await socket.recv())[0] for _ in range(2)]
        assert (good["width"], good["height"], len(good["polyps"])) == (8, 4, 1)
        assert (bad["outcome"], bad["cause"]) == ("failed", "undecodable-image")


async def test_null_in_a_configuration_means_the_default() -> None:
    async with serving() as it, opened(it) as socket:
        await socket.send(json.dumps(dict.fromkeys(StreamConfig.model_fields)))
        await socket.send(packed(1))
        head, mask = unpacked(await socket.recv())
    assert head["outcome"] == "answered"
    assert mask_of(mask).sum() == 32 * 24


async def test_null_in_the_head_of_a_frame_means_what_leaving_it_out_means() -> None:
    named = {"format": "uyvy", "width": 8, "height": 4}
    optional = ["stride", "matrix", "range"]
    unnamed = dict.fromkeys(["capture_time_us", "presentation_time_us"])
    async with serving() as it, opened(it) as socket:
        await socket.send(json.dumps({"policy": "every", "mask_format": "rle"}))
        await socket.send(packed(1, bytes([128, 81]) * 32, raw=named))
        await socket.send(packed(2, bytes([128, 81]) * 32, raw=named | dict.fromkeys(optional), **unnamed))
        await socket.send(packed(3, raw=None))
        answers = [unpacked(await socket.recv())[0] for _ in range(3)]
    assert [(each["outcome"], each["width"]) for each in answers] == [
        ("answered", 8),
        ("answered", 8),
        ("answered", 64),
    ]


@pytest.mark.parametrize(
    ("messages", "kind"),
    [
        ([PICTURE], "invalid-request"),
        (["no JSON"], "invalid-request"),
        (["[" * 10_000], "invalid-request"),
        ([EVERY, "[" * 10_000], "invalid-request"),
        ([EVERY, LENGTH.pack(100_000) + b"[" * 10_000], "invalid-request"),
        ([json.dumps({"policy": "oldest"})], "invalid-parameter"),
        ([json.dumps({"colour": "red"})], "invalid-parameter"),
        (["[]"], "invalid-parameter"),
        ([EVERY, EVERY], "invalid-request"),
        ([EVERY, b"\x01"], "invalid-request"),
        ([EVERY, LENGTH.pack(1_000_000) + b"{}"], "invalid-request"),
    ],
)
async def test_a_malformed_stream_is_told_why_it_is_closed(messages: list[str | bytes], kind: str) -> None:
    async with serving() as it, opened(it) as socket:
        for message in messages:
            await socket.send(message)
        code, texts = await last_words(socket)
        assert code == 1002
        assert [text["type"] for text in texts] == [f"urn:pranet:error:{kind}"]


@pytest.mark.parametrize(
    ("messages", "advice"),
    [
        ([json.dumps({"colour": None})], "colour is unknown; the known names are threshold, output"),
        ([json.dumps({"colour": "red"})], "colour is unknown; the known names are threshold, output"),
        ([json.dumps({"roi": "left"})], "roi is 'left', but it should be full, auto"),
        ([json.dumps({"smoothing_ms": True})], "smoothing_ms is true, but it should be a number such as 0.25"),
        (
            [json.dumps({"mask_format": "rle", "output": "overlay"})],
            "mask_format is 'rle', but output is 'overlay'; leave",
        ),
        (
            [json.dumps({"mask_format": "bits", "output": "json"})],
            "mask_format is 'bits', but output is 'json'; leave one",
        ),
        ([json.dumps({"threshold": 7})], "threshold is 7, but it should be less than or equal to 1"),
        (["[]"], "it should be a JSON object"),
        ([""], "send the configuration of the stream as a JSON object, such as {}"),
        ([EVERY, EVERY], "the stream is configured already; send frames as binary messages, and as text only {"),
        ([EVERY, ""], "a new configuration needs a new stream"),
        ([EVERY, LENGTH.pack(2) + b"{}"], "frame_id is missing; send it"),
        ([EVERY, LENGTH.pack(2) + b"{]"], "send a JSON object with frame_id"),
        ([EVERY, packed(1, raw={"format": "rgb24"})], "raw.width is missing; send it"),
        ([EVERY, packed(1, capture_time=1)], "capture_time is unknown; the known names are frame_id, "),
        ([json.dumps({"policy": [[]] * 5_000})], "of a message has 20012 bytes; send at most 16384"),
        (["é" * 10_000], "of a message has 20000 bytes; send at most 16384"),
        ([EVERY, packed(1, more=[[]] * 5_000)], "bytes; send at most 16384"),
    ],
)
async def test_a_malformed_stream_is_told_what_would_be_right(messages: list[str | bytes], advice: str) -> None:
    async with serving() as it, opened(it) as socket:
        for message in messages:
            await socket.send(message)
        _, (text,) = await last_words(socket)
        assert advice in text["detail"]


async def test_a_message_that_is_too_large_is_told_so_before_the_stream_is_closed() -> None:
    async with serving(max_image_bytes=len(PICTURE)) as it, opened(it) as socket:
        await socket.send(EVERY)
        await socket.send(packed(1, bytes(it.service.settings.max_message_bytes)))
        code, texts = await last_words(socket)
        assert (code, [text["type"] for text in texts]) == (1009, ["urn:pranet:error:too-many-bytes"])
        limit = len(PICTURE) + 65536
        assert f"more than the limit of {limit} (MAX_IMAGE_BYTES + 65536); send a smaller one" in texts[0]["detail"]
        assert it.metric("pranet_rejected_total", {"reason": "too-many-bytes"}) == 1


async def test_a_text_is_measured_in_bytes_and_not_in_letters() -> None:
    async with serving(max_image_bytes=len(PICTURE)) as it, opened(it) as socket:
        await socket.send("é" * (it.service.settings.max_message_bytes // 2 + 1))
        code, texts = await last_words(socket)
        assert (code, [text["type"] for text in texts]) == (1009, ["urn:pranet:error:too-many-bytes"])


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "null", "https://[", ""])
async def test_pages_of_other_sites_may_not_stream(origin: str) -> None:
    async with serving() as it:
        with pytest.raises(InvalidStatus) as refused:
            async with opened(it, Origin=origin):
                pass
        problem = json.loads(refused.value.response.body or b"")
        assert (problem["status"], problem["type"]) == (403, "urn:pranet:error:foreign-origin")
        assert it.metric("pranet_requests_total", {"transport": "websocket", "code": "403"}) == 1
        assert it.metric("pranet_rejected_total", {"reason": "foreign-origin"}) == 1
        async with opened(it, Origin=f"http://127.0.0.1:{it.port}") as socket:
            await socket.send(EVERY)


async def before_configuration(hold: Held, socket: ClientConnection) -> None:
    await asyncio.sleep(0)


async def waiting_for_frames(hold: Held, socket: ClientConnection) -> None:
    await socket.send("{}")
    await until(lambda: hold.it.service.streams.active == 1)


async def waiting_encoded(hold: Held, socket: ClientConnection) -> None:
    await inferring(hold, socket)
    await socket.send(packed(1))
    await until(lambda: hold.received == 2)


async def decoding(hold: Held, socket: ClientConnection) -> None:
    hold.hold_decoding()
    await socket.send("{}")
    await socket.send(packed(0))
    await until(hold.decoding.is_set)


async def inferring(hold: Held, socket: ClientConnection) -> None:
    await socket.send("{}")
    await socket.send(packed(0))
    await hold.predictor.has_begun()


STATES = [before_configuration, waiting_for_frames, waiting_encoded, decoding, inferring]
Reach = Callable[[Held, ClientConnection], Awaitable[None]]


@pytest.mark.parametrize("reach", STATES)
async def test_a_browser_that_leaves_leaves_nothing_behind(reach: Reach) -> None:
    async with held() as hold:
        async with opened(hold.it) as socket:
            await reach(hold, socket)
        await hold.nothing_left()


@pytest.mark.parametrize("reach", STATES)
async def test_when_the_service_stops_a_browser_gets_its_answers_and_is_sent_away(reach: Reach) -> None:
    async with held() as hold, opened(hold.it) as socket:
        await reach(hold, socket)
        hold.it.service.readiness.enter(Phase.DRAINING)
        hold.it.service.streams.drain()
        hold.open()
        answers = [unpacked(await socket.recv())[0] for _ in range(round(hold.received))]
        assert {head["outcome"] for head in answers} <= {"answered"}
        code, texts = await last_words(socket)
        assert (code, texts[0]["type"]) == (1001, "urn:pranet:error:draining")
        await hold.nothing_left()


async def test_a_browser_that_leaves_behind_a_full_window_while_the_service_drains_holds_nothing_up() -> None:
    async with held() as hold:
        async with opened(hold.it) as socket:
            await socket.send(EVERY)
            for number in range(hold.it.service.settings.stream_window + 1):
                await socket.send(packed(number))
            await until(lambda: hold.received == hold.it.service.settings.stream_window)
            draining = asyncio.create_task(drain.drain(hold.it.service))
            await until(lambda: hold.it.service.readiness.phase is Phase.DRAINING)
        async with asyncio.timeout(PATIENCE):
            assert await draining == 0
        assert hold.predictor.frames == 0
        assert hold.it.metric("pranet_rejected_total", {"reason": "client-left"}) == 1


async def test_a_browser_that_comes_while_connections_are_closed_is_told_that_the_service_stops(
    patched: Patches, caplog: pytest.LogCaptureFixture
) -> None:
    reached, go_on, send = asyncio.Event(), asyncio.Event(), WebSocketProtocol.send

    async def held_send(self: WebSocketProtocol, message: Any) -> None:
        reached.set()
        await go_on.wait()
        await send(self, message)

    async def told(it: Running) -> tuple[int, list[dict[str, Any]]]:
        async with opened(it) as socket:
            return await last_words(socket)

    patched(WebSocketProtocol, "send", held_send)
    shutdown = patched(WebSocketProtocol, "shutdown")
    stack = contextlib.AsyncExitStack()
    it = await stack.enter_async_context(serving())
    coming = asyncio.create_task(told(it))
    async with asyncio.timeout(PATIENCE):
        await reached.wait()
    it.service.readiness.enter(Phase.DRAINING)
    stopping = asyncio.create_task(stack.aclose())
    await until(lambda: shutdown.count == 1)
    go_on.set()
    code, texts = await coming
    assert (code, texts[0]["type"]) == (1001, "urn:pranet:error:draining")
    await stopping
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("loss", Loss)
async def test_a_browser_that_vanished_is_cleaned_up_by_pings(loss: Loss, patched: Patches) -> None:
    patched(http_server, "WS_PING_SECONDS", 0.5)
    patched(http_server, "WS_PING_TIMEOUT_SECONDS", 0.5)
    async with serving() as it, black_hole(it.port, loss) as (port, gone):
        socket = await connect(f"ws://127.0.0.1:{port}/stream", proxy=None)
        await socket.send("{}")
        await socket.send(packed(0))
        await socket.recv()
        assert it.service.streams.active == 1
        gone.set()
        await until(lambda: not it.service.streams.active)
        check_identity(it)
        socket.transport.abort()


async def test_the_live_page_allows_nothing_from_elsewhere() -> None:
    async with serving() as it:
        answer = await it.rest.get("/")
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert "http://" not in answer.text
        assert "https://" not in answer.text


async def test_a_flood_of_pings_has_to_wait_and_the_stream_goes_on(patched: Patches) -> None:
    waited, go_on = [], WebSocketProtocol._go_on
    patched(WebSocketProtocol, "_go_on", lambda self: (waited.append(self.transport.is_reading()), go_on(self)))
    async with serving() as it, opened(it) as socket:
        socket.transport.write(b"\x89\x80\x00\x00\x00\x00" * 3 * LOOSE_FRAMES)
        await until(lambda: bool(waited))
        await socket.send(EVERY)
        await socket.send(packed(1))
        head, _ = unpacked(await socket.recv())
    assert head["frame_id"] == 1
    assert not waited[0]


async def test_a_client_that_is_faster_than_the_service_is_slowed_and_not_taken_for_gone(patched: Patches) -> None:
    patched(http_server, "WS_PING_SECONDS", 0.1)
    patched(http_server, "WS_PING_TIMEOUT_SECONDS", 0.5)  # the client is in the same process, which may be busy
    answered = patched(WebSocketProtocol, "keepalive_timeout")
    frames = 15
    picture = encoded(Image.effect_noise((400, 400), 90).convert("RGB"), "PNG")  # more than buffers hold
    async with (
        serving(RedPredictor(before=lambda batch: time.sleep(0.2)), max_batch_size=1) as it,
        opened(it) as socket,
        asyncio.timeout(PATIENCE),
    ):
        await socket.send(EVERY)
        sending = asyncio.create_task(send_all(socket, frames, picture))
        heads = [unpacked(await socket.recv())[0] for _ in range(frames)]
        await sending
    assert [head["outcome"] for head in heads] == ["answered"] * frames
    assert answered.count


async def send_all(socket: ClientConnection, frames: int, picture: bytes) -> None:
    for number in range(frames):
        await socket.send(packed(number, picture))
    await socket.send(END)


async def test_a_frame_that_shows_the_same_is_marked_here_too() -> None:
    async with serving(stream_window=1) as it, opened(it) as socket:
        await socket.send(json.dumps({"policy": "every", "reuse": True}))
        for number in range(2):
            await socket.send(packed(number, capture_time_us=number))
        heads = [unpacked(await socket.recv())[0] for _ in range(2)]
        assert [head["reused"] for head in heads] == [False, True]
        assert ["infer" in head["timings_ms"] for head in heads] == [True, False]


async def test_a_client_that_leaves_while_the_service_drains_ends_its_stream() -> None:
    async with held() as hold:
        async with opened(hold.it) as socket:
            await socket.send(EVERY)
            await socket.send(packed(0))
            await hold.predictor.has_begun()
            hold.it.service.readiness.enter(Phase.DRAINING)
            hold.it.service.streams.drain()
            await socket.send(packed(1))  # is not accepted any more
            socket.transport.abort()
        await until(lambda: not hold.it.service.calls.unanswered)
        assert hold.predictor.frames == 0  # it still computes
        hold.open()
        await hold.nothing_left()
