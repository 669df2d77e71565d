"""The page in a real browser: with a token, over TLS, under its Content-Security-Policy."""

import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.access.tokens import Token, digest_of
from tests.support import browser
from tests.support.browser import MILLISECONDS
from tests.support.certificates import Authority
from tests.support.pictures import SAMPLES
from tests.support.serving import serving

playwright = pytest.importorskip("playwright.async_api")

pytestmark = pytest.mark.slow

TODAY = datetime.now(UTC).date()
UNAUTHENTICATED = "401"
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


async def test_pictures_that_a_token_was_missing_for_are_segmented_with_the_next_one() -> None:
    asked = 0

    async def ends(route: Any) -> None:
        nonlocal asked
        asked += 1
        if asked > 2:
            await route.fulfill(status=401, json={"detail": "the token was removed; ask for a new one"})
        else:
            await route.continue_()

    names = [f"{number}.jpg" for number in range(8)]
    files = [{"name": name, "mimeType": "image/jpeg", "buffer": SAMPLES[0].read_bytes()} for name in names]
    async with serving() as it, browser.opened(f"http://127.0.0.1:{it.port}/") as (page, _):
        await page.evaluate("sessionStorage.setItem('pranet-token', 'one')")
        await page.route("**/segment*", ends)
        await page.set_input_files("#file", files)
        await playwright.expect(page.locator("#access")).to_be_visible()
        await playwright.expect(page.locator("#gallery-summary")).to_contain_text("6 failed")
        await playwright.expect(page.locator("#rows li", has_text="The token was removed")).to_have_count(6)
        async with page.expect_download() as download:
            await page.click("#save-zip")
        with zipfile.ZipFile(await (await download.value).path()) as archive:
            assert len([name for name in archive.namelist() if name.startswith("masks/")]) == 2
        await page.unroute("**/segment*")
        await give(page, "another")
        await playwright.expect(page.locator("#status")).to_have_text("All 8 pictures are segmented.")
        await playwright.expect(page.locator("#gallery-summary")).not_to_contain_text("failed")
