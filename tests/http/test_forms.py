"""Multipart bodies: the fields of a form are options, as the parameters of the query are, and parts are pictures."""

import base64
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.pictures import encoded, red_box
from tests.support.serving import Running, serving

PICTURE = encoded(red_box(64, 48, (16, 12, 48, 36)))
FILE = {"file": ("x.png", PICTURE, "image/png")}
ROUTES = ("/segment", "/segment/batch")


@pytest.fixture
async def it() -> AsyncIterator[Running]:
    async with serving() as running:
        yield running


async def test_fields_of_a_form_give_what_the_same_query_gives(it: Running) -> None:
    options = {"threshold": "0.25", "output": "json", "roi": "24,16,16,16"}
    of_form = (await it.rest.post("/segment", files=FILE, data=options)).json()
    of_query = (await it.rest.post("/segment", files=FILE, params=options)).json()
    assert (of_form["threshold"], of_form["rle"]) == (0.25, of_query["rle"])
    assert of_form["rle"] != (await it.rest.post("/segment", files=FILE, params={"output": "json"})).json()["rle"]


async def test_fields_of_an_archives_form_are_options_of_all_its_pictures(it: Running) -> None:
    files = [("file", (f"{number}.png", PICTURE)) for number in range(2)]
    data = {"output": "probability", "depth": "16", "threshold": "0.25"}
    answer = await it.rest.post("/segment/batch", files=files, data=data)
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["threshold"] for line in lines] == [0.25, 0.25]
    assert {Image.open(io.BytesIO(base64.b64decode(line["png"]))).mode for line in lines} == {"I;16"}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("form", "query", "advice"),
    [
        ({"threshold": "7"}, {}, "the form: threshold is 7, but it should be less than or equal to 1"),
        ({"treshold": "0.3"}, {}, "treshold is unknown; the known names are threshold, output"),
        ({"threshold": ["0.3", "0.3"]}, {}, "threshold is given 2 times; give it once"),
        ({"threshold": "0.3"}, {"threshold": "0.4"}, "threshold differs between the form and the query"),
        ({"output": "svg"}, {}, "the form: output is 'svg'"),
    ],
)
async def test_fields_that_are_wrong_are_refused_as_parameters_of_the_query_are(
    it: Running, route: str, form: dict[str, Any], query: dict[str, str], advice: str
) -> None:
    answer = await it.rest.post(route, files=FILE, data=form, params=query)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:pranet:error:invalid-parameter")
    assert advice in answer.json()["detail"]


async def test_an_option_may_stand_in_form_and_query_if_both_agree(it: Running) -> None:
    answer = await it.rest.post("/segment", files=FILE, data={"depth": "16"}, params={"depth": "16", "output": "json"})
    assert answer.status_code == 200
    probability = await it.rest.post(
        "/segment", files=FILE, data={"threshold": "0.50", "output": "probability"}, params={"threshold": "0.5"}
    )
    assert np.asarray(Image.open(io.BytesIO(probability.content))).shape == (48, 64)


@pytest.mark.parametrize("route", ["/segment", "/segment/batch"])
async def test_the_documentation_shows_the_fields_of_the_form(it: Running, route: str) -> None:
    body = (await it.rest.get("/openapi.json")).json()["paths"][route]["post"]["requestBody"]
    form = body["content"]["multipart/form-data"]["schema"]
    of_objects = {"omit_empty", "segmentation_type"} if route == "/segment" else set()
    assert form["properties"].keys() == {"file", "threshold", "output", "depth", "roi"} | of_objects
    assert "multipart/related" in body["content"]
    assert form["additionalProperties"] is False


@pytest.mark.parametrize(
    ("names", "name"),
    [
        ("filename*=utf-8''polyp%20%C3%A4.png", "polyp ä.png"),
        ("filename=\"=?utf-8?B?w6QucG5n?=\"; filename*=utf-8''%C3%A4.png", "ä.png"),  # as .NET sends both
        ("filename*=utf-8''%C3%A4.png; filename=a.png", "ä.png"),
        ("filename*=ISO-8859-1'de'%E4.png", "ä.png"),
        ("filename*=utf-8''%FF.png", "\ufffd.png"),
        ("filename*=utf-7''%2B2AA-.png", "\ufffd.png"),
        ("filename*=nothing''a.png", "a.png"),
        ("FileName*=\"utf-8''a.png\"", "a.png"),
        ("filename=a.png; filename*=nothing''%C3%A4.png", "a.png"),
        ("filename=a.png; filename*0*=x; filename*=utf-8", "a.png"),
        ('filename="a*.png"', "a*.png"),
        ("filename=\"; filename*=utf-8''b.png\"", "; filename*=utf-8''b.png"),
    ],
)
async def test_a_file_has_the_name_that_any_client_gives_it(it: Running, names: str, name: str) -> None:
    head = f'--b\r\nContent-Disposition: form-data; name="file"; {names}\r\n\r\n'
    form = head.encode() + PICTURE + b"\r\n--b--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = await it.rest.post("/segment/batch", content=form, headers=headers)
    assert [json.loads(line)["name"] for line in answer.text.splitlines()] == [name]
    assert (await it.rest.post("/segment", content=form, headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("part", "advice"),
    [
        (b'name="+2AA-"\r\n\r\n0.5', "the form: \ufffd is unknown"),
        (b'name="output"\r\n\r\n+2AA-', "the form: output is '\ufffd'"),
    ],
)
async def test_half_a_letter_in_a_form_is_told_as_an_unreadable_one(it: Running, part: bytes, advice: str) -> None:
    picture = b'--b\r\nContent-Disposition: form-data; name="file"; filename="+2AA-.png"\r\n\r\n' + PICTURE
    form = picture + b"\r\n--b\r\nContent-Disposition: form-data; " + part + b"\r\n--b--\r\n"
    kind = "multipart/form-data; boundary=b; charset=utf-7"
    answer = await it.rest.post("/segment", content=form, headers={"content-type": kind})
    assert (answer.status_code, advice in answer.json()["detail"]) == (422, True), answer.text


async def test_a_form_in_a_charset_that_nothing_can_be_read_in_is_refused(it: Running) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="threshold"\r\n\r\n0.5\r\n--b--\r\n'
    kind = "multipart/form-data; boundary=b; charset=undefined"
    answer = await it.rest.post("/segment", content=part, headers={"content-type": kind})
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:pranet:error:invalid-request")


@pytest.mark.parametrize(
    ("kind", "body", "reason"),
    [
        (
            "form-data",
            b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--",
            "a part has no name in its Content-Dis",
        ),
        (
            "form-data",
            b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n' + bytes(2**20 + 1) + b"\r\n--b--",
            "a field has more than 1048576 bytes",
        ),
        ("form-data", b"--b\r\n\xff: x\r\n\r\nx\r\n--b--", "headers or the charset of its parts, cannot be read"),
        ("form-data", b"--b\rx", "its boundaries, or the headers or the charset"),
        ("form-data", b"--b\r\n", "it ends before its last boundary"),
        ("related", b"--b\r\n\xff: x\r\n\r\nx\r\n--b--", "its boundaries or the headers of its parts cannot be read"),
    ],
)
@pytest.mark.parametrize("route", ROUTES)
async def test_a_malformed_body_of_parts_is_refused_in_words_of_the_service(
    it: Running, route: str, kind: str, body: bytes, reason: str
) -> None:
    answer = await it.rest.post(route, content=body, headers={"content-type": f"multipart/{kind}; boundary=b"})
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:pranet:error:invalid-request")
    told, _, advice = answer.json()["detail"].rpartition("; ")
    assert reason in told
    assert advice.startswith("send ")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b""),
        (b"\r\n", b""),
        (b"This is a message in MIME format.\r\nIt says --b.\r\n", b""),
        (b"", b" \t"),
        (b"x\r\n--bc\r\n", b"  "),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
async def test_related_parts_may_have_a_preamble_and_blanks_after_boundaries(
    it: Running, before: bytes, after: bytes, at_once: bool
) -> None:
    part = b"--b" + after + b"\r\nContent-Type: image/png\r\n\r\n" + PICTURE + b"\r\n"
    body = before + part + part + b"--b--" + after

    async def single_bytes() -> AsyncIterator[bytes]:
        for position in range(len(body)):
            yield body[position : position + 1]

    headers = {"content-type": "multipart/related; boundary=b"}
    answer = await it.rest.post("/segment/batch", content=body if at_once else single_bytes(), headers=headers)
    assert [json.loads(line)["status"] for line in answer.text.splitlines()] == [200, 200], answer.text


@pytest.mark.parametrize(
    ("kind", "body", "advice"),
    [
        ("multipart/related", b"--b\r\n\r\nx\r\n--b--", "names no boundary; add the one of the body"),
        ('multipart/related; boundary=""', b"--b\r\n\r\nx\r\n--b--", "names no boundary; add the one of the body"),
        ("multipart/related; boundary=c", b"--b\r\n\r\nx\r\n--b--", "does not begin with the boundary"),
        (
            "multipart/related; boundary=b",
            b"x" * 4096 + b"\r\n--b\r\n\r\nx\r\n--b--",
            "does not begin with the boundary",
        ),
        ("multipart/related; boundary=b", b"", "does not begin with the boundary"),
    ],
)
async def test_related_parts_without_their_boundary_are_refused_by_name(
    it: Running, kind: str, body: bytes, advice: str
) -> None:
    answer = await it.rest.post("/segment", content=body, headers={"content-type": kind})
    assert (answer.status_code, advice in answer.json()["detail"]) == (400, True), answer.text
