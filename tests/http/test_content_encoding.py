"""Bodies that are packed (``Content-Encoding``) are read as plain ones, within the same limits."""

import gzip
import io
import json
import tracemalloc
import zipfile
import zlib
from collections.abc import AsyncIterator

import pytest

from tests.support.dicom_objects import PICTURES, dicom, written
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
PACK = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress}


@pytest.fixture
async def it() -> AsyncIterator[Running]:
    async with serving(max_image_bytes=MEBIBYTE, max_archive_bytes=MEBIBYTE) as running:
        yield running


def headers_of(name: str, coding: str) -> dict[str, str]:
    extra = {"inference-header-content-length": str(len(INFER))} if name == "tensor" else {}
    return {"content-type": BODIES[name][1], "content-encoding": coding, **extra}


@pytest.mark.parametrize("coding", PACK)
@pytest.mark.parametrize("name", BODIES)
async def test_a_packed_body_is_answered_as_the_plain_one(it: Running, name: str, coding: str) -> None:
    path, _, body = BODIES[name]
    plain = await it.rest.post(path, content=body, headers=headers_of(name, "identity"))
    packed = await it.rest.post(path, content=PACK[coding](body), headers=headers_of(name, coding))
    assert (plain.status_code, packed.status_code) == (200, 200), packed.text
    if name in ("picture", "form", "object"):
        assert mask_of(packed.content).any()
        assert packed.content == plain.content


@pytest.mark.parametrize("name", BODIES)
async def test_other_codings_are_refused_with_those_that_are_read(it: Running, name: str) -> None:
    path, _, body = BODIES[name]
    for coding in ("br", "gzip, gzip"):
        answer = await it.rest.post(path, content=body, headers=headers_of(name, coding))
        assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "gzip, deflate")
        assert f"Content-Encoding {coding}; send it with one of gzip, deflate" in answer.text


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("name", BODIES)
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
