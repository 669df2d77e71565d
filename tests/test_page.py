import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import browser
from browser import MILLISECONDS
from fakes import PATIENCE, Running, serving
from pictures import SAMPLES
from service.core import load_predictor
from service.settings import Settings

playwright = pytest.importorskip("playwright.async_api")
axe = pytest.importorskip("axe_playwright_python.async_playwright")

pytestmark = pytest.mark.slow

SCREENSHOTS = {"light": (1200, 900), "dark": (1200, 900), "phone": (390, 844)}  # pixels


@asynccontextmanager
async def page(it: Running, folder: Path, **options: Any) -> AsyncIterator[Any]:
    """Open the page; no console error may occur."""
    async with browser.opened(f"http://127.0.0.1:{it.port}/", folder, **options) as (opened, faults):
        await playwright.expect(opened.locator("#model")).not_to_be_empty()
        yield opened
        assert [fault for fault in faults if "415" not in fault and "422" not in fault] == []  # a refused picture


async def no_serious_fault(opened: Any) -> None:
    results = await axe.Axe().run(opened)
    serious = [fault for fault in results.response["violations"] if fault["impact"] in ("serious", "critical")]
    assert [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in serious] == []


async def segmented(opened: Any) -> None:
    await playwright.expect(opened.locator("#status")).to_contain_text("Segmented in", timeout=MILLISECONDS)


GREEN = """() => {
    const canvas = document.getElementById("canvas");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let count = 0;
    for (let i = 0; i < data.length; i += 4) count += data[i] === 64 && data[i + 1] === 255 && data[i + 2] === 96;
    return count;
}"""


async def test_a_sample_shows_its_polyp_and_the_threshold_acts_without_another_request(tmp_path: Path) -> None:
    async with serving() as it, page(it, tmp_path) as opened:
        await opened.click("[data-sample='polyp-1.jpg']")
        await segmented(opened)
        marked = await opened.evaluate(GREEN)
        assert marked > 0
        requests = it.metric("pranet_decodes_total")
        await opened.fill("#threshold", "0.99")
        assert await opened.evaluate(GREEN) != marked
        assert it.metric("pranet_decodes_total") == requests
        for button, name in (("#save-mask", "mask.png"), ("#save-json", "polyps.json")):
            async with opened.expect_download() as download:
                await opened.click(button)
            assert (await download.value).suggested_filename == name
        await no_serious_fault(opened)


async def test_the_four_side_outputs_are_shown_next_to_each_other(tmp_path: Path) -> None:
    async with serving() as it, page(it, tmp_path) as opened:
        await opened.set_input_files("#file", SAMPLES[0])
        await segmented(opened)
        await opened.click("#show-maps")
        await opened.wait_for_selector("#maps:not([hidden])")
        widths = await opened.evaluate("[...document.querySelectorAll('.maps canvas')].map((map) => map.width)")
        assert widths == [568] * 4


async def test_a_bad_file_shows_its_error(tmp_path: Path) -> None:
    async with serving() as it, page(it, tmp_path) as opened:
        bad = tmp_path / "bad.png"
        bad.write_bytes(SAMPLES[0].read_bytes()[:2000])
        await opened.set_input_files("#file", bad)
        await playwright.expect(opened.locator("#error")).to_contain_text("damaged")


async def test_a_camera_streams_for_ten_seconds_with_a_moving_rate(tmp_path: Path) -> None:
    async with serving() as it, page(it, tmp_path) as opened:
        await opened.click("#camera")
        await playwright.expect(opened.locator("#fps")).not_to_have_text("0.0")
        rates, received = set(), []
        for _ in range(10):
            await asyncio.sleep(1)
            rates.add(await opened.text_content("#fps"))
            received.append(int(await opened.text_content("#received")))
        assert len(rates) > 1
        assert received == sorted(set(received))  # more every second
        assert await opened.evaluate(GREEN) >= 0
        await no_serious_fault(opened)
        await opened.click("#stop")
        async with asyncio.timeout(PATIENCE):
            await it.service.streams.idle.wait()


@pytest.mark.parametrize("name", SCREENSHOTS)
async def test_the_page_as_it_looks(name: str, tmp_path: Path) -> None:
    """Leave a picture of the page in the folder SCREENSHOTS, from which the README's are taken."""
    width, height = SCREENSHOTS[name]
    options = {"viewport": {"width": width, "height": height}, "color_scheme": "dark" if name == "dark" else "light"}
    predictor = await asyncio.to_thread(load_predictor, Settings(device="cpu"))
    async with serving(predictor) as it, page(it, tmp_path, **options) as opened:
        await opened.click("[data-sample='polyp-2.jpg']")
        await segmented(opened)
        overflow = await opened.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow == 0
        await no_serious_fault(opened)
        await opened.screenshot(path=Path(os.environ.get("SCREENSHOTS", tmp_path)) / f"page-{name}.png")
