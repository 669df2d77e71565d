"""What the page says it found, and that it never shows or saves the result of another picture."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support import browser
from tests.support.pictures import SAMPLES
from tests.support.serving import serving

playwright = pytest.importorskip("playwright.async_api")

pytestmark = pytest.mark.slow

RESULTS = ("#save-mask", "#save-json", "#show-maps")
PIXELS = """() => {
    const canvas = document.getElementById("canvas");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let green = 0, sum = 0;
    for (let i = 0; i < data.length; i += 4) {
        green += data[i] === 64 && data[i + 1] === 255 && data[i + 2] === 96;
        sum += data[i];
    }
    return { width: canvas.width, green, sum, hidden: !canvas.checkVisibility() };
}"""


async def test_a_new_picture_stands_there_at_once_without_anything_of_the_one_before(tmp_path: Path) -> None:
    gate = asyncio.Event()
    gate.set()

    async def held(route: Any) -> None:
        await gate.wait()
        await route.continue_()

    (tmp_path / "bad.png").write_bytes(b"no picture")
    async with serving() as it, browser.opened(f"http://127.0.0.1:{it.port}/", tmp_path) as (page, _):
        await page.route("**/segment*", held)
        await page.set_input_files("#file", SAMPLES[0])
        await playwright.expect(page.locator("#status")).to_contain_text("Segmented in")
        first = await page.evaluate(PIXELS)
        assert first["green"] > 0
        gate.clear()
        await page.set_input_files("#file", SAMPLES[1])
        await playwright.expect(page.locator("#status")).to_contain_text("Segmenting")
        for button in RESULTS:
            await playwright.expect(page.locator(button)).to_be_disabled()
        await page.wait_for_function(f"({PIXELS})().width !== {first['width']}")
        second = await page.evaluate(PIXELS)
        assert (second["green"], second["hidden"]) == (0, False)
        gate.set()
        await playwright.expect(page.locator("#status")).to_contain_text("Segmented in")
        await page.wait_for_function(f"({PIXELS})().green > 0")
        await page.set_input_files("#file", tmp_path / "bad.png")
        await playwright.expect(page.locator("#error")).not_to_be_empty()
        assert (await page.evaluate(PIXELS))["hidden"]
        for button in RESULTS:
            await playwright.expect(page.locator(button)).to_be_disabled()
