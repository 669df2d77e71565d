"""The documentation of the routes: it is complete, true and accessible, and requests can be tried out."""

import asyncio
import html
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from service.access.tokens import Token, digest_of
from service.oip import rest as oip
from service.oip.model import UNSUPPORTED
from service.rest.routes import CORS_ANSWER_HEADERS
from tests.support import browser
from tests.support.pictures import SAMPLES
from tests.support.serving import serving

playwright = pytest.importorskip("playwright.async_api")

pytestmark = pytest.mark.slow

TRACE = ("/trace/setting", "/trace/setting/{rest:path}")  # refused by name


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(Token("good", digest_of("good")).line())
    return path


async def test_requests_that_are_tried_out_take_the_token_that_they_need(tokens: Path) -> None:
    async with (
        serving(api_tokens_file=tokens) as it,
        browser.opened(f"http://127.0.0.1:{it.port}/docs/try") as (page, faults),
    ):
        await page.click(".scheme-container .authorize")
        await page.fill(".auth-container input", "good")
        await page.click(".auth-btn-wrapper .authorize")
        await page.click(".auth-btn-wrapper .btn-done")
        await page.click("#operations-Operation-info_info_get .opblock-summary-control")
        await page.click("#operations-Operation-info_info_get .try-out button")
        await page.click("#operations-Operation-info_info_get .execute")
        await playwright.expect(page.locator(".live-responses-table .microlight").first).to_contain_text(
            "weights_sha256"
        )
        assert faults == []


async def test_without_tokens_the_documentation_asks_for_none() -> None:
    async with serving() as it:
        assert "securitySchemes" not in (await it.rest.get("/openapi.json")).json().get("components", {})


async def test_the_documentation_names_every_route_with_headers_and_examples_that_are_true() -> None:
    async with serving() as it:
        document = (await it.rest.get("/openapi.json")).json()
        mounted = {f"/v2{route.path}".rstrip("/") for route in oip.build(it.service).routes}
        refused = {path for path in mounted if any(path.startswith(f"/v2/{begin}") for begin in UNSUPPORTED)}
        assert mounted - refused - {f"/v2/models/{{name}}{tail}" for tail in TRACE} <= set(document["paths"])
        assert {"/segment", "/segment/batch", "/stream", "/livez", "/readyz", "/info", "/metrics"} <= set(
            document["paths"]
        )
        for path, operations in document["paths"].items():
            body = operations.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
            for method, operation in operations.items():
                example = (
                    operation["responses"].get("200", {}).get("content", {}).get("application/json", {}).get("example")
                )
                if example is None or path == "/segment":
                    continue
                url = path.replace("{name}", "pranet").replace("{version}", "1")
                answer = (await it.rest.request(method, url, json=body.get("example"))).json()
                ours, theirs = (each[0] if isinstance(each, list) else each for each in (example, answer))
                assert set(ours) <= set(theirs), path
        answer = await it.rest.post("/segment?output=json", content=SAMPLES[0].read_bytes())
        described = document["paths"]["/segment"]["post"]["responses"]["200"]
        assert set(described["content"]["application/json"]["example"]) == set(answer.json())
        at_times = {"x-presence", "x-quality", "x-left-out"}
        assert {name.lower() for name in described["headers"]} - at_times <= set(answer.headers)


async def test_the_error_of_the_document_is_what_the_service_answers() -> None:
    async with serving() as it:
        answers = (await it.rest.get("/openapi.json")).json()["paths"]["/segment"]["post"]["responses"]
        answer = (await it.rest.post("/segment", content=b"no picture")).json()
    example = answers["415"]["content"]["application/problem+json"]["example"]
    assert example == {**answer, "request_id": example["request_id"]}


async def test_the_document_names_every_header_that_pages_of_named_sites_may_read() -> None:
    async with serving() as it:
        document = (await it.rest.get("/openapi.json")).json()
    assert {name.lower() for name in document["components"]["headers"]} == {*map(str.lower, CORS_ANSWER_HEADERS)}
    assert "X-Left-Out" in document["paths"]["/segment"]["post"]["responses"]["200"]["headers"]


async def test_the_document_says_where_pages_of_other_sites_are_refused() -> None:
    async with serving() as it:
        for path, operations in (await it.rest.get("/openapi.json")).json()["paths"].items():
            url = path.replace("{name}", "pranet").replace("{version}", "1")
            for method, operation in operations.items():
                if path == "/stream":  # only the handshake of a WebSocket is refused
                    continue
                answer = await it.rest.request(method, url, headers={"origin": "https://elsewhere.example"})
                assert (answer.status_code == 403) is ("403" in operation["responses"]), path


async def test_the_document_has_a_schema_for_each_type_of_answer() -> None:
    async with serving() as it:
        document = (await it.rest.get("/openapi.json")).json()
        answer = await it.rest.post("/segment?output=json", content=SAMPLES[0].read_bytes())
    content = document["paths"]["/segment"]["post"]["responses"]["200"]["content"]
    schemas = {kind: described["schema"] for kind, described in content.items()}
    assert schemas.pop("application/json") == {"$ref": "#/components/schemas/SegmentationBody"}
    assert schemas.keys() == {"image/png", "application/dicom", "application/x-ndjson", "multipart/mixed"}
    assert all(schema == {"type": "string", "format": "binary"} for schema in schemas.values())
    valid(document, content["application/json"]["schema"], answer.json())


async def test_the_document_names_the_range_of_a_threshold() -> None:
    async with serving() as it:
        paths = (await it.rest.get("/openapi.json")).json()["paths"]
    for path in ("/segment", "/segment/batch"):
        operation = paths[path]["post"]
        query = {parameter["name"]: parameter["schema"] for parameter in operation["parameters"]}
        form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
        for schema in (query["threshold"], form["threshold"]):
            assert schema["anyOf"] == [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "null"}]


async def test_every_example_of_the_document_is_valid() -> None:
    async with serving() as it:
        document = (await it.rest.get("/openapi.json")).json()
    checked = 0
    for operation in [each for operations in document["paths"].values() for each in operations.values()]:
        bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
        for described in (media for body in bodies for media in body.get("content", {}).values()):
            if "example" in described:
                valid(document, described["schema"], described["example"])
                checked += 1
    assert checked > 100


@pytest.mark.parametrize("public_metrics", [False, True])
async def test_the_document_asks_for_a_token_where_one_is_needed(tokens: Path, public_metrics: bool) -> None:
    async with serving(api_tokens_file=tokens, public_metrics=public_metrics) as it:
        for path, operations in (await it.rest.get("/openapi.json")).json()["paths"].items():
            url = path.replace("{name}", "pranet").replace("{version}", "1")
            for method, operation in operations.items():
                answer = await it.rest.request(method, url)
                assert (answer.status_code == 401) is ("security" in operation), path
                assert "401" in operation["responses"] or answer.status_code != 401, path


async def test_the_document_names_the_binary_bodies_of_an_inference() -> None:
    async with serving() as it:
        operation = (await it.rest.get("/openapi.json")).json()["paths"]["/v2/models/{name}/infer"]["post"]
    for body in (operation["requestBody"], operation["responses"]["200"]):
        assert body["content"].keys() == {"application/json", "application/octet-stream"}
    named = [parameter["name"] for parameter in operation["parameters"]]
    assert "Inference-Header-Content-Length" in {*named} & operation["responses"]["200"]["headers"].keys()


async def test_the_reference_shows_every_operation_without_a_script() -> None:
    async with (
        serving() as it,
        browser.opened(f"http://127.0.0.1:{it.port}/docs", java_script_enabled=False) as (page, faults),
    ):
        for path, operations in (await it.rest.get("/openapi.json")).json()["paths"].items():
            for method, operation in operations.items():
                shown = page.locator(
                    "section", has=page.get_by_role("heading", name=f"{method.upper()} {path}", exact=True)
                )
                await playwright.expect(shown).to_contain_text(operation["summary"])
                written = await shown.inner_html()
                named = [*operation.get("parameters", []), *({"name": name} for name in _headers(operation))]
                assert [name["name"] for name in named if f"<code>{name['name']}</code>" not in written] == []
        await page.get_by_role("link", name="Try requests").click()
        await playwright.expect(page).to_have_url(f"http://127.0.0.1:{it.port}/docs/try")
        assert faults == []


async def test_the_reference_is_accessible_in_both_schemes_and_fits_a_phone() -> None:
    async with serving() as it, browser.opened(f"http://127.0.0.1:{it.port}/docs") as (page, faults):
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme)
            await browser.no_serious_fault(page)
        await page.set_viewport_size({"width": 320, "height": 640})
        assert await page.evaluate("document.documentElement.scrollWidth") == 320
        assert faults == []


async def test_commands_in_the_reference_are_answered(tokens: Path, tmp_path: Path) -> None:
    shutil.copy(SAMPLES[0], tmp_path / "frame.jpg")
    with zipfile.ZipFile(tmp_path / "frames.zip", "w") as archive:
        archive.write(SAMPLES[0], "frame.jpg")
    async with serving(api_tokens_file=tokens) as it:
        page = html.unescape((await it.rest.get("/docs")).text)
        commands = re.findall(r"<pre[^>]*>(curl .*?)</pre>", page)
        assert len(commands) > 20
        for command in commands:
            shell = await asyncio.create_subprocess_shell(
                f"{command} -sS --fail-with-body -o /dev/null",
                cwd=tmp_path,
                env={**os.environ, "TOKEN": "good"},
                stderr=asyncio.subprocess.PIPE,
            )
            _, said = await shell.communicate()
            assert (shell.returncode, said) == (0, b""), command


@pytest.mark.long
async def test_requests_can_be_tried_out_under_the_policy_of_the_page(tokens: Path) -> None:
    async with (
        serving(api_tokens_file=tokens) as it,
        browser.opened(f"http://127.0.0.1:{it.port}/docs/try") as (page, faults),
    ):
        await page.click("#operations-Operation-livez_livez_get .opblock-summary-control")
        for operation in ("segment_segment_post", "segment_batch_segment_batch_post"):
            await page.click(f"#operations-Segmentation-{operation} .opblock-summary-control")
        await playwright.expect(page.locator("[data-param-name='threshold'] input").first).to_be_visible()
        await browser.no_serious_fault(page)
        await page.click("#operations-Operation-livez_livez_get .try-out button")
        await page.click("#operations-Operation-livez_livez_get .execute")
        await playwright.expect(page.locator(".live-responses-table .microlight").first).to_contain_text("alive")
        assert faults == []
        policy = (await it.rest.get("/docs/try")).headers["content-security-policy"]
        assert "unsafe" not in policy


def valid(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    """Check a value against a schema whose references point into an OpenAPI document."""
    jsonschema.validate(value, {**schema, "components": document["components"]}, jsonschema.Draft202012Validator)


def _headers(operation: dict[str, Any]) -> list[str]:
    return [
        name for status, answer in operation["responses"].items() if status < "4" for name in answer.get("headers", ())
    ]
