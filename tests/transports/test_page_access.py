"""The page and the documentation in a real browser: with a token, over TLS, under their Content-Security-Policy."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.access.tokens import Token, digest_of
from service.oip import rest as oip
from service.oip.model import UNSUPPORTED
from tests.support import browser
from tests.support.browser import MILLISECONDS
from tests.support.certificates import Authority
from tests.support.pictures import SAMPLES
from tests.support.serving import serving

playwright = pytest.importorskip("playwright.async_api")

pytestmark = pytest.mark.slow

TODAY = datetime.now(UTC).date()
UNAUTHENTICATED = "401"
TRACE = ("/trace/setting", "/trace/setting/{rest:path}")  # refused by name
CREDENTIALS = {"wrong": "The token is unknown", "expired": "expired after", "not one": "This is not a token"}


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    lines = [Token("good", digest_of("good")), Token("expired", digest_of("expired"), TODAY - timedelta(days=1))]
    path.write_text("\n".join(token.line() for token in lines))
    return path


async def give(page: Any, token: str) -> None:
    await page.fill("#token", token)
    await page.click("#access button")


async def test_the_page_asks_for_a_token_and_works_with_a_right_one_only(tokens: Path) -> None:
    async with (
        serving(api_tokens_file=tokens) as it,
        browser.opened(f"http://127.0.0.1:{it.port}/") as opened,
    ):
        page, faults = opened
        await playwright.expect(page.locator("#error")).to_contain_text("requires a token")
        await page.click("[data-sample='polyp-1.jpg']")
        await playwright.expect(page.locator("#error")).to_contain_text("requires a token")
        await page.click("#camera")
        await playwright.expect(page.locator("#error")).to_contain_text("requires a token")
        for token, complaint in CREDENTIALS.items():
            await give(page, token)
            await playwright.expect(page.locator("#error")).to_contain_text(complaint)
        assert it.metric("pranet_decodes_total") == 0
        await give(page, "good")
        await playwright.expect(page.locator("#model")).not_to_be_empty()
        await playwright.expect(page.locator("#access")).to_be_hidden()
        await page.click("[data-sample='polyp-1.jpg']")
        await playwright.expect(page.locator("#status")).to_contain_text("Segmented in", timeout=MILLISECONDS)
        await page.click("#camera")
        await playwright.expect(page.locator("#fps")).not_to_have_text("0.0")
        await page.click("#stop")
        assert await page.evaluate("[document.cookie, localStorage.length, location.href.includes('good')]") == [
            "",
            0,
            False,
        ]
        assert [fault for fault in faults if UNAUTHENTICATED not in fault and "WebSocket" not in fault] == []


async def test_over_tls_pictures_and_camera_work_without_a_word_from_the_browser(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with (
        serving(**authority.server()) as it,
        browser.opened(f"https://127.0.0.1:{it.port}/", ignore_https_errors=True) as (page, faults),
    ):
        await page.click("[data-sample='polyp-1.jpg']")
        await playwright.expect(page.locator("#status")).to_contain_text("Segmented in", timeout=MILLISECONDS)
        await page.click("#camera")
        await playwright.expect(page.locator("#fps")).not_to_have_text("0.0")
        assert faults == []


async def test_the_documentation_takes_the_token_that_its_calls_need(tokens: Path) -> None:
    async with (
        serving(api_tokens_file=tokens) as it,
        browser.opened(f"http://127.0.0.1:{it.port}/docs") as (page, faults),
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
        assert {name.lower() for name in described["headers"]} - {"x-presence", "x-quality"} <= set(answer.headers)


async def test_the_documentation_works_under_its_policy(tokens: Path) -> None:
    async with (
        serving(api_tokens_file=tokens) as it,
        browser.opened(f"http://127.0.0.1:{it.port}/docs") as (page, faults),
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
        policy = (await it.rest.get("/docs")).headers["content-security-policy"]
        assert "unsafe" not in policy
