"""Packed bodies (``Content-Encoding``) are read as plain ones, within the same limits; answers are packed too."""

import base64
import gzip
import io
import json
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from service.http import content_encoding
from service.http.content_encoding import Packer
from tests.support.dicom_objects import PICTURES, dicom, needs_dicom, written
from tests.support.patching import Patches
from tests.support.pictures import encoded, mask_of, red_box
from tests.support.serving import Running, serving

PICTURE = encoded(red_box(64, 48, (16, 12, 48, 36)))
URLENCODED = {"content-type": "application/x-www-form-urlencoded"}
MEBIBYTE = 2**20


def zipped() -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("0.png", PICTURE)
    return archive.getvalue()


FORM = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + PICTURE + b"\r\n--b--\r\n"
INFER = json.dumps(
    {
        "inputs": [
            {
                "name": "image",
                "datatype": "BYTES",
                "shape": [1],
                "parameters": {"binary_data_size": len(PICTURE) + 4},
            }
        ]
    }
).encode()
BODIES = {
    "picture": ("/segment", "image/png", PICTURE),
    "form": ("/segment", "multipart/form-data; boundary=b", FORM),
    "object": ("/segment", "application/dicom", written(dicom(PICTURES[:1]))),
    "zip": ("/segment/batch", "application/zip", zipped()),
    "form of many": ("/segment/batch", "multipart/form-data; boundary=b", FORM),
    "tensor": (
        "/v2/models/pranet/infer",
        "application/octet-stream",
        INFER + len(PICTURE).to_bytes(4, "little") + PICTURE,
    ),
}
NAMES = [pytest.param(name, marks=needs_dicom if name == "object" else ()) for name in BODIES]
PACK = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress}


@pytest.fixture
async def it() -> AsyncIterator[Running]:
    async with serving(max_image_bytes=MEBIBYTE, max_archive_bytes=MEBIBYTE) as running:
        yield running


def headers_of(name: str, coding: str) -> dict[str, str]:
    extra = {"inference-header-content-length": str(len(INFER))} if name == "tensor" else {}
    return {"content-type": BODIES[name][1], "content-encoding": coding, **extra}


@pytest.mark.parametrize("coding", PACK)
@pytest.mark.parametrize("name", NAMES)
async def test_a_packed_body_is_answered_as_the_plain_one(it: Running, name: str, coding: str) -> None:
    path, _, body = BODIES[name]
    plain = await it.rest.post(path, content=body, headers=headers_of(name, "identity"))
    packed = await it.rest.post(path, content=PACK[coding](body), headers=headers_of(name, coding))
    assert (plain.status_code, packed.status_code) == (200, 200), packed.text
    if name in ("picture", "form", "object"):
        assert mask_of(packed.content).any()
        assert packed.content == plain.content


@pytest.mark.parametrize("name", NAMES)
async def test_other_codings_are_refused_with_those_that_are_read(it: Running, name: str) -> None:
    path, _, body = BODIES[name]
    for coding in ("br", "gzip, gzip"):
        answer = await it.rest.post(path, content=body, headers=headers_of(name, coding))
        assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "gzip, deflate")
        assert f"Content-Encoding {coding}; send it with one of gzip, deflate" in answer.text


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("name", NAMES)
async def test_a_bomb_is_stopped_at_the_limit_while_it_is_unpacked(it: Running, name: str, coding: str) -> None:
    path, _, body = BODIES[name]
    bomb = PACK[coding](body + bytes(50 * MEBIBYTE))
    assert len(bomb) < MEBIBYTE
    tracemalloc.start()
    answer = await it.rest.post(path, content=bomb, headers=headers_of(name, coding))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # A form ends at its last boundary, and what follows is read no further than the limit either.
    assert answer.status_code == 413, answer.text
    assert peak < 16 * MEBIBYTE


async def test_a_packed_body_of_several_members_or_bytes_at_a_time_is_whole(it: Running) -> None:
    body = gzip.compress(PICTURE[:100]) + gzip.compress(b"") + gzip.compress(PICTURE[100:])

    async def single_bytes() -> AsyncIterator[bytes]:
        for position in range(len(body)):
            yield body[position : position + 1]

    plain = await it.rest.post("/segment", content=PICTURE)
    for content in (body, single_bytes()):
        answer = await it.rest.post("/segment", content=content, headers={"content-encoding": "gzip"})
        assert (answer.status_code, answer.content) == (200, plain.content)


async def test_output_that_waits_inside_the_unpacker_is_not_lost(it: Running) -> None:
    picture = encoded(red_box(640, 480, (160, 120, 480, 360)), "BMP")  # 0.9 MiB that pack to few bytes
    answer = await it.rest.post("/segment", content=gzip.compress(picture), headers={"content-encoding": "gzip"})
    assert answer.status_code == 200
    assert mask_of(answer.content).shape == (480, 640)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_packed_body_that_is_cut_off_is_refused(it: Running, coding: str) -> None:
    answer = await it.rest.post("/segment", content=PACK[coding](PICTURE)[:-3], headers={"content-encoding": coding})
    assert (answer.status_code, f"{coding} data is incomplete" in answer.json()["detail"]) == (400, True)


async def test_clients_that_name_no_type_of_a_picture_have_its_bytes_looked_at(it: Running) -> None:
    plain = await it.rest.post("/segment", content=PICTURE, headers={"content-type": "image/png"})
    curl = await it.rest.post("/segment", content=PICTURE, headers=URLENCODED)
    assert (curl.status_code, curl.content) == (200, plain.content)
    archive = await it.rest.post("/segment/batch", content=zipped(), headers=URLENCODED)
    assert [json.loads(line)["status"] for line in archive.text.splitlines()] == [200]


UNPACK = {"gzip": gzip.decompress, "deflate": zlib.decompress}
LARGE = encoded(red_box(1200, 900, (100, 100, 700, 800)))  # its mask is above what is packed in the event loop


async def raw(it: Running, method: str, path: str, accepted: str, **request: Any) -> tuple[httpx.Headers, bytes]:
    """Return the headers and the bytes of an answer as they were sent."""
    async with it.rest.stream(method, path, headers={"accept-encoding": accepted}, **request) as answer:
        assert answer.status_code == 200
        return answer.headers, b"".join([part async for part in answer.aiter_raw()])


@pytest.mark.parametrize("coding", UNPACK)
@pytest.mark.parametrize("path", ["/openapi.json", "/docs", "/docs/assets/swagger-ui-bundle.js", "/metrics"])
async def test_text_is_packed_for_clients_that_ask_for_it(it: Running, path: str, coding: str) -> None:
    headers, body = await raw(it, "GET", path, coding)
    _, plain = await raw(it, "GET", path, "identity")
    assert headers["content-encoding"] == coding
    assert headers["vary"] == "Accept-Encoding"
    assert len(body) < len(plain) / 2
    assert int(headers.get("content-length", len(body))) == len(body)
    assert path == "/metrics" or UNPACK[coding](body) == plain  # metrics change


@pytest.mark.parametrize("coding", UNPACK)
async def test_a_mask_in_json_and_one_of_the_inference_protocol_are_packed(it: Running, coding: str) -> None:
    headers, body = await raw(it, "POST", "/segment?output=json", coding, content=LARGE)
    assert headers["content-encoding"] == coding
    assert json.loads(UNPACK[coding](body))["polyps"]
    infer = {
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(LARGE).decode()]}]
    }
    infer |= {"outputs": [{"name": "mask", "parameters": {"binary_data": True}}]}
    headers, body = await raw(it, "POST", "/v2/models/pranet/infer", coding, json=infer)
    assert len(body) < 20_000
    content = UNPACK[coding](body)
    header = json.loads(content[: int(headers["inference-header-content-length"])])
    assert len(content) == int(headers["inference-header-content-length"]) + 1200 * 900
    assert header["outputs"][0]["shape"] == [1, 900, 1200]


@pytest.mark.parametrize(
    ("accepted", "coding"),
    {
        "gzip, deflate": "gzip",
        "deflate, gzip;q=0.5": "deflate",
        "deflate;q=1.0000, gzip;q=.5": "deflate",
        "*;q=.5": "gzip",
        "gzip;q=0": None,
        "*": "gzip",
        "*;q=0": None,
        "br": None,
        "identity, gzip;q=0.5": None,
        "GZIP": "gzip",
        "": None,
    }.items(),
)
async def test_the_client_decides_whether_and_how_answers_are_packed(
    it: Running, accepted: str, coding: str | None
) -> None:
    assert (await raw(it, "GET", "/openapi.json", accepted))[0].get("content-encoding") == coding


async def test_pictures_and_short_answers_are_not_packed_again(it: Running) -> None:
    for method, path, content in (("POST", "/segment", LARGE), ("GET", "/livez", None)):
        assert "content-encoding" not in (await raw(it, method, path, "gzip", content=content))[0]


async def test_a_packed_file_is_not_sent_again_to_who_has_it(it: Running) -> None:
    headers, _ = await raw(it, "GET", "/pages/live.js", "gzip")
    assert headers["etag"].startswith('W/"')
    again = await it.rest.get("/pages/live.js", headers={"if-none-match": headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert (again.headers["etag"], again.headers["vary"]) == (headers["etag"], headers["vary"])
    part = await it.rest.get("/pages/live.js", headers={"range": "bytes=0-1999"})
    assert (part.status_code, part.headers.get("content-encoding"), len(part.content)) == (206, None, 2000)


async def test_an_answer_whose_packing_takes_too_long_becomes_an_error_with_its_cause(patched: Patches) -> None:
    patched(Packer, "_packed", lambda *_: time.sleep(1.0) or b"")
    patched(content_encoding, "THREAD_BYTES", 1)
    async with serving(request_timeout_ms=100) as it:
        answer = await it.rest.get("/openapi.json", headers={"accept-encoding": "gzip"})
        counted = it.service.metrics.registry.get_sample_value
        assert (answer.status_code, answer.json()["type"]) == (504, "urn:pranet:error:deadline-exceeded")
        assert answer.headers["x-request-id"]
        assert counted("pranet_requests_total", {"transport": "rest", "code": "504"}) == 1


async def test_lines_of_an_archive_are_sent_as_they_are_made(it: Running) -> None:
    archive = {"content-type": "application/zip"}
    async with it.rest.stream("POST", "/segment/batch", content=zipped(), headers=archive) as answer:
        assert "content-encoding" not in answer.headers
        assert [json.loads(line)["status"] async for line in answer.aiter_lines()] == [200]
