"""``POST /segment/batch``: every picture of an archive gets its own answer, and a bad one harms only itself."""

import asyncio
import base64
import contextlib
import email.parser
import email.policy
import io
import json
import socket
import struct
import threading
import tracemalloc
import zipfile
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from model.presence import Presence
from service.rest import archive_routes
from service.runtime import Phase
from tests.support.patching import Patches
from tests.support.pictures import dice, encoded, mask_of, red_box
from tests.support.predictors import GatedPredictor, RedPredictor
from tests.support.serving import PATIENCE, Running, counted, serving, until

BOXES = ((10, 10, 60, 40), (40, 20, 90, 60), (5, 30, 45, 70))
PICTURES = [red_box(100, 80, box) for box in BOXES]
IMAGES = {f"{number}.png": encoded(picture) for number, picture in enumerate(PICTURES)}
MASKS = [mask_of(encoded(picture.getchannel("R"))) for picture in PICTURES]
ZIP = {"content-type": "application/zip"}


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


async def sent(it: Running, archive: bytes, query: str = "", **headers: str) -> httpx.Response:
    return await it.rest.post(f"/segment/batch{query}", content=archive, headers=ZIP | headers)


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    found = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["index"] for line in found] == list(range(int(answer.headers["x-pictures"])))
    return found


def parts(answer: httpx.Response) -> list[Any]:
    """Return the parts of a ``multipart/mixed`` answer, as the standard library reads them."""
    head = f"content-type: {answer.headers['content-type']}\r\n\r\n".encode()
    return list(email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + answer.content).iter_parts())


async def test_every_picture_of_a_zip_is_answered_with_its_name_and_mask() -> None:
    async with serving() as it:
        found = lines(await sent(it, zipped(IMAGES)))
    assert [(line["name"], line["status"]) for line in found] == [(name, 200) for name in IMAGES]
    for line, mask in zip(found, MASKS, strict=True):
        assert dice(mask_of(base64.b64decode(line["png"])), mask) > 0.95
        assert (line["width"], line["height"], line["model"]["model_id"]) == (100, 80, "red-00000000")
        assert {"decode", "infer", "total"} <= line["timings_ms"].keys()


async def test_many_parts_of_a_form_are_answered_as_a_zip_is() -> None:
    files = [("file", (name, data, "image/png")) for name, data in IMAGES.items()]
    async with serving() as it:
        of_form = lines(await it.rest.post("/segment/batch", files=files))
        of_zip = lines(await sent(it, zipped(IMAGES)))
    assert [(line["name"], line["png"]) for line in of_form] == [(line["name"], line["png"]) for line in of_zip]


async def test_multipart_mixed_carries_each_picture_as_it_is() -> None:
    names = {'a "b"\r\nX-Status: 7.png': IMAGES["0.png"], "ünï/1.png": b"no picture"}
    async with serving() as it:
        answer = await sent(it, zipped(names), accept="multipart/mixed")
    good, bad = parts(answer)
    assert (good["x-status"], good.get_content_type(), bad["x-status"]) == ("200", "image/png", "415")
    assert dice(mask_of(good.get_payload(decode=True)), MASKS[0]) > 0.95
    assert (good["x-model"], good["x-index"], bad["x-index"]) == ("red-00000000", "0", "1")
    assert bad.get_filename() == "ünï/1.png"
    assert json.loads(bad.get_payload(decode=True))["type"] == "urn:pranet:error:unsupported-image"


async def test_each_answer_of_an_archive_tells_the_scores_that_a_single_picture_has() -> None:
    picture = encoded(Image.new("RGB", (64, 48), (40, 40, 40)))
    dark = zipped({"dark.png": picture})
    predictor = RedPredictor()
    predictor.model = replace(predictor.model, presence=Presence(scale=0.5, offset=-1.0, threshold=0.4))
    async with serving(predictor) as it:
        single = await it.rest.post("/segment?output=probability", content=picture)
        (line,) = lines(await sent(it, dark, "?output=probability"))
        (of_mask,) = lines(await sent(it, dark))
        mixed = await sent(it, dark, "?output=probability", accept="multipart/mixed")
    assert line["quality"] == single.headers["x-quality"].split(", ") == ["too_dark", "blurred"]
    assert "quality" not in of_mask  # is not looked for
    (part,) = parts(mixed)
    assert [part[name] for name in ("x-presence", "x-quality")] == [
        single.headers[name] for name in ("x-presence", "x-quality")
    ]


async def test_json_is_made_of_archives_too() -> None:
    async with serving() as it:
        found = lines(await sent(it, zipped(IMAGES), "?output=json&threshold=0.4"))
    assert [len(line["segmentation"]["polyps"]) for line in found] == [1, 1, 1]
    assert found[0]["segmentation"]["threshold"] == 0.4


async def test_a_bad_picture_harms_only_itself() -> None:
    whole = IMAGES["0.png"]
    files = {"0.png": whole, "text.txt": b"hello", "cut.png": whole[:60], "large.png": whole + bytes(5000), "1": b""}
    async with serving(max_image_bytes=4000) as it:
        found = lines(await sent(it, zipped(files)))
        assert it.metric("pranet_in_flight") == 0
    assert [line["status"] for line in found] == [200, 415, 422, 413, 400]
    assert found[1]["error"]["type"] == "urn:pranet:error:unsupported-image"


async def test_a_damaged_or_unknown_packing_harms_only_its_own_file() -> None:
    damaged = bytearray(zipped(IMAGES))
    damaged[damaged.index(IMAGES["1.png"]) + 50] ^= 0xFF
    async with serving() as it:
        checked = lines(await sent(it, bytes(damaged)))
        packed = lines(await sent(it, zipped(IMAGES, zipfile.ZIP_LZMA)))
        deflated = lines(await sent(it, zipped(IMAGES, zipfile.ZIP_DEFLATED)))
    assert [line["status"] for line in checked] == [200, 422, 200]
    assert [line["status"] for line in packed] == [415] * 3
    assert [line["status"] for line in deflated] == [200] * 3


def declaring(archive: bytes, size: int) -> bytes:
    """Change the unpacked size that the directory declares for the first file."""
    changed = bytearray(archive)
    struct.pack_into("<L", changed, changed.index(b"PK\1\2") + 24, size)
    return bytes(changed)


async def test_a_bomb_is_refused_by_what_it_declares() -> None:
    bomb = zipped({f"{number}.bmp": bytes(900_000) for number in range(20)}, zipfile.ZIP_DEFLATED)
    async with serving(max_image_bytes=1_000_000) as it:
        answer = await sent(it, bomb)
        assert it.metric("pranet_decodes_total") == 0
    assert (answer.status_code, answer.json()["type"]) == (413, "urn:pranet:error:too-many-bytes")
    assert "unpacks to 18000000" in answer.json()["detail"]


async def test_a_bomb_that_declares_less_is_stopped_at_what_it_declares() -> None:
    bomb = declaring(zipped({"0.bmp": bytes(200_000_000)}, zipfile.ZIP_DEFLATED), 1000)
    async with serving(max_image_bytes=1_000_000) as it:
        tracemalloc.start()
        (line,) = lines(await sent(it, bomb))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (line["status"], line["error"]["type"]) == (422, "urn:pranet:error:undecodable-image")
    assert peak < 20_000_000


@pytest.mark.parametrize(
    ("archive", "status", "words"),
    [
        (b"", 400, "the body is empty; send a zip"),
        (b"PK nothing", 400, "not a zip"),
        (zipped({}), 400, "no file"),
        (zipped({"folder/": b""}), 400, "no file"),
        (zipped(IMAGES)[:-10], 400, "not a zip"),
        (zipped(IMAGES) + b"more", 400, "damaged at its end"),
        (zipped(IMAGES)[:-22] + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 9, 9, 2**23, 0, 0), 413, "directory"),
        (zipped(IMAGES)[:-22] + b"PK\6\7" + bytes(16) + zipped(IMAGES)[-22:], 400, "zip64"),
        (zipped(IMAGES).replace(b"PK\1\2", b"PK\1\3", 1), 400, "damaged"),
    ],
)
async def test_what_is_no_zip_of_pictures_is_refused_whole(archive: bytes, status: int, words: str) -> None:
    async with serving() as it:
        answer = await sent(it, archive)
    assert answer.status_code == status
    assert words in answer.json()["detail"]


async def test_other_bodies_and_parameters_are_refused_with_advice() -> None:
    async with serving(max_archive_bytes=1000) as it:
        wrong = await it.rest.post("/segment/batch", content=IMAGES["0.png"], headers={"content-type": "image/png"})
        form = await it.rest.post("/segment/batch", files=[("file", ("a", bytes(2000), "image/png"))])
        large = await sent(it, bytes(1001))
        maps = await sent(it, zipped(IMAGES), "?output=maps")
        empty = await it.rest.post(
            "/segment/batch", content=b"--x--\r\n", headers={"content-type": "multipart/form-data; boundary=x"}
        )
    assert [each.status_code for each in (wrong, form, large, maps, empty)] == [415, 413, 413, 422, 400]
    assert "MAX_ARCHIVE_BYTES" in large.json()["detail"]


async def test_answers_come_while_later_pictures_wait_and_no_more_are_begun_than_allowed() -> None:
    predictor = GatedPredictor()
    files = {str(number): IMAGES["0.png"] for number in range(40)}
    async with (
        asyncio.timeout(PATIENCE),
        serving(predictor, max_batch_size=1) as it,
        it.rest.stream("POST", "/segment/batch", content=zipped(files), headers=ZIP) as answer,
    ):
        await predictor.has_begun()
        predictor.permits.release()
        received = answer.aiter_lines()
        first = json.loads(await anext(received))
        await predictor.has_begun()
        assert it.service.segmenter.in_flight <= 2
        assert it.metric("pranet_decodes_total") < 5
        predictor.open()
        others = [json.loads(line) async for line in received]
    assert [line["index"] for line in (first, *others)] == list(range(40))


async def test_the_directory_of_a_large_archive_is_read_beside_all_answers(patched: Patches) -> None:
    threads = []
    real = archive_routes.from_zip

    def reading(*given: Any) -> Any:
        threads.append(threading.current_thread())
        return real(*given)

    patched(archive_routes, "from_zip", reading)
    patched(archive_routes, "SMALL_BYTES", 0)
    async with serving() as it:
        assert len(lines(await sent(it, zipped(IMAGES)))) == 3
    assert threads != [threading.current_thread()]


async def test_who_leaves_takes_the_archive_along() -> None:
    predictor = GatedPredictor()
    async with serving(predictor, max_batch_size=1, max_archives=1) as it:
        leaving = asyncio.create_task(sent(it, zipped(IMAGES)))
        await predictor.has_begun()
        leaving.cancel()
        await until(lambda: it.service.segmenter.in_flight == 0)
        predictor.open()
        await until(lambda: it.metric("pranet_rejected_total", {"reason": "client-left"}) == 1)
        assert len(lines(await sent(it, zipped(IMAGES)))) == 3  # its place among the archives is free
    assert predictor.frames == 1 + 3


@pytest.mark.slow
async def test_who_does_not_read_is_given_up() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8)
    noise[:, :, 0] = 0  # no polyps to outline, but a picture that no PNG makes smaller
    archive = zipped(
        {str(number): encoded(Image.fromarray(noise), "BMP") for number in range(8)}
    )  # answered with 3 MB each
    head = f"POST /segment/batch?output=overlay HTTP/1.1\r\nhost: x\r\ncontent-length: {len(archive)}\r\n"
    async with serving(request_timeout_ms=2000, max_archives=1) as it:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", it.port))
            request = f"{head}content-type: application/zip\r\n\r\n".encode() + archive
            await asyncio.to_thread(client.sendall, request)
            await until(lambda: it.metric("pranet_rejected_total", {"reason": "client-left"}) == 1)
        assert len(lines(await sent(it, zipped(IMAGES)))) == 3


async def test_more_archives_than_allowed_are_refused_before_they_are_read() -> None:
    predictor = GatedPredictor()
    async with serving(predictor, max_archives=1) as it:
        first = asyncio.create_task(sent(it, zipped(IMAGES)))
        await predictor.has_begun()
        second = await sent(it, zipped(IMAGES))
        predictor.open()
        assert len(lines(await first)) == 3
    assert (second.status_code, second.headers["retry-after"]) == (429, "1")
    assert "MAX_ARCHIVES" in second.json()["detail"]


async def test_an_archive_leaves_places_for_others() -> None:
    predictor = GatedPredictor()
    files = {str(number): IMAGES["0.png"] for number in range(20)}
    async with serving(predictor, max_batch_size=1, max_queue_size=2) as it:
        archive = asyncio.create_task(sent(it, zipped(files)))
        await predictor.has_begun()
        await until(lambda: it.service.segmenter.in_flight == 1)
        single = asyncio.create_task(it.rest.post("/segment", content=IMAGES["0.png"]))
        await until(lambda: it.service.segmenter.in_flight == 2)
        predictor.open()
        assert (await single).status_code == 200
        assert {line["status"] for line in lines(await archive)} == {200}


async def test_an_archive_waits_for_room_where_others_are_refused() -> None:
    predictor = GatedPredictor()
    async with serving(predictor, max_batch_size=1, max_queue_size=1) as it:
        singles = []
        for in_flight in (1, 2):
            singles.append(asyncio.create_task(it.rest.post("/segment", content=IMAGES["0.png"])))
            await until(lambda wanted=in_flight: it.service.segmenter.in_flight == wanted)
            if in_flight == 1:
                await predictor.has_begun()
        archive = asyncio.create_task(sent(it, zipped(IMAGES)))
        await until(lambda: it.service.segmenter.in_flight == 3)
        refused = await it.rest.post("/segment", content=IMAGES["0.png"])
        predictor.open()
        assert {line["status"] for line in lines(await archive)} == {200}
        assert {(await single).status_code for single in singles} == {200}
    assert refused.status_code == 429


async def test_archives_share_the_pictures_that_may_be_at_work() -> None:
    predictor = GatedPredictor()
    async with serving(predictor, max_batch_size=1) as it:
        archives = [asyncio.create_task(sent(it, zipped(IMAGES))) for _ in range(2)]
        await predictor.has_begun()
        await until(lambda: it.service.archives.working == 2)
        await until(lambda: it.service.segmenter.in_flight == 2)
        predictor.permits.release()
        await predictor.has_begun()
        await until(lambda: it.service.segmenter.in_flight == 2)
        predictor.open()
        assert [len(lines(await archive)) for archive in archives] == [3, 3]


async def test_a_stopping_service_accounts_for_every_picture() -> None:
    predictor = GatedPredictor()
    files = {str(number): IMAGES["0.png"] for number in range(10)}
    async with serving(predictor, max_batch_size=1) as it:
        archive = asyncio.create_task(sent(it, zipped(files)))
        await predictor.has_begun()
        it.service.readiness.enter(Phase.DRAINING)
        predictor.open()
        found = lines(await archive)
        late = await sent(it, zipped(files))
    assert [line["status"] for line in found] == [200] * 2 + [503] * 8
    assert late.status_code == 503


@pytest.mark.parametrize(("ending", "code"), [("draining", "503"), ("client-left", "499")])
async def test_an_archive_that_is_not_answered_to_its_end_is_counted_as_failed(ending: str, code: str) -> None:
    predictor = GatedPredictor()
    async with serving(predictor, max_batch_size=1) as it:
        with contextlib.suppress(httpx.RemoteProtocolError):
            async with it.rest.stream("POST", "/segment/batch", content=zipped(IMAGES), headers=ZIP) as answer:
                await predictor.has_begun()
                if ending == "draining":
                    (call,) = it.service.calls.unanswered.values()
                    call.cut_off()
                    await answer.aread()
        await until(lambda: not it.service.calls.unanswered)
        predictor.open()
        assert counted(it) == ({("rest", code): 1}, {ending: 1})


async def test_a_named_time_is_kept_for_the_whole_archive() -> None:
    predictor = GatedPredictor()
    async with serving(predictor, max_batch_size=1) as it:
        found = lines(await sent(it, zipped(IMAGES), **{"x-request-timeout-ms": "200"}))
        predictor.open()
    assert [line["status"] for line in found] == [504] * 3


async def test_an_archive_that_waits_for_another_past_its_time_answers_each_picture() -> None:
    predictor = GatedPredictor()
    async with serving(predictor, max_batch_size=1) as it:
        other = asyncio.create_task(sent(it, zipped(IMAGES)))
        await until(lambda: it.service.segmenter.in_flight == 2)  # all places of archives
        found = lines(await sent(it, zipped(IMAGES), **{"x-request-timeout-ms": "200"}))
        predictor.open()
        assert {line["status"] for line in lines(await other)} == {200}
    assert [line["status"] for line in found] == [504] * 3


async def test_an_archive_whose_time_is_over_still_answers_each_of_its_pictures(patched: Patches) -> None:
    patched("service.calls", "LATE_SECONDS", 0.0)
    predictor = GatedPredictor()
    files = {str(number): IMAGES["0.png"] for number in range(300)}
    async with serving(predictor, max_batch_size=1) as it:
        found = lines(await sent(it, zipped(files), **{"x-request-timeout-ms": "200"}))
        predictor.open()
    assert [line["status"] for line in found] == [504] * 300


async def test_what_macos_adds_to_a_zip_is_no_picture() -> None:
    files = {"a.png": IMAGES["0.png"], "__MACOSX/._a.png": b"\0\5\x16\7"}
    async with serving() as it:
        assert [(line["name"], line["status"]) for line in lines(await sent(it, zipped(files)))] == [("a.png", 200)]
