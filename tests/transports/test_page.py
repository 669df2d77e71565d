import asyncio
import base64
import hashlib
import io
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from service.commands.video.writer import VideoWriter
from service.runtime import load_predictor
from service.settings import Settings
from tests.support import browser
from tests.support.pictures import SAMPLES, red_box, turned
from tests.support.predictors import RedPredictor
from tests.support.serving import Running, serving, until

playwright = pytest.importorskip("playwright.async_api")

pytestmark = pytest.mark.slow

LONG_STREAM = 240 if "SCREENSHOTS" in os.environ else 30  # frames, after which the chart has something to show
SCREENSHOTS = {"light": (1200, 900), "dark": (1200, 1000), "phone": (390, 844)}  # pixels


@asynccontextmanager
async def page(it: Running, host: str = "127.0.0.1", **options: Any) -> AsyncIterator[Any]:
    """Open the page; no console error may occur."""
    async with browser.opened(f"http://{host}:{it.port}/", **options) as (opened, faults):
        await playwright.expect(opened.locator("#model")).not_to_be_empty()
        yield opened
        assert [fault for fault in faults if "415" not in fault and "422" not in fault] == []  # a refused picture


async def segmented(opened: Any) -> None:
    await playwright.expect(opened.locator("#status")).to_contain_text("Segmented in")


SHOWN = "document.getElementById('canvas').toDataURL()"


async def test_a_sample_shows_its_polyp_and_the_threshold_acts_without_another_request() -> None:
    async with serving() as it, page(it) as opened:
        await opened.click("[data-sample='polyp-1.jpg']")
        await segmented(opened)
        marked = await opened.evaluate(browser.GREEN)
        assert marked > 0
        requests = it.metric("pranet_decodes_total")
        await opened.fill("#threshold", "0.99")
        assert await opened.evaluate(browser.GREEN) != marked
        assert it.metric("pranet_decodes_total") == requests
        for button, name in (("#save-mask", "polyp-1-mask.png"), ("#save-json", "polyp-1-polyps.json")):
            async with opened.expect_download() as download:
                await opened.click(button)
            assert (await download.value).suggested_filename == name
        await browser.no_serious_fault(opened)


async def test_a_late_answer_for_an_earlier_picture_is_not_shown() -> None:
    release, asked = asyncio.Event(), []

    async def first_is_late(route: Any) -> None:
        asked.append(route)
        if len(asked) == 1:
            await release.wait()
        await route.continue_()

    async with serving() as it, page(it) as opened:
        await opened.route("**/segment*", first_is_late)
        await opened.click("[data-sample='polyp-1.jpg']")
        await playwright.expect(opened.locator("#status")).to_have_text("Segmenting…")
        await opened.click("[data-sample='polyp-2.jpg']")
        await segmented(opened)
        shown = await opened.evaluate(SHOWN)
        release.set()
        await opened.wait_for_timeout(500)
        assert await opened.evaluate(SHOWN) == shown


async def test_the_four_side_outputs_are_shown_next_to_each_other(weights: Path) -> None:
    predictor = RedPredictor()  # its masks, but maps of the bundled weights
    content = await asyncio.to_thread(weights.read_bytes)
    predictor.model = replace(predictor.model, weights_sha256=hashlib.sha256(content).hexdigest())
    async with serving(predictor) as it, page(it) as opened:
        await opened.set_input_files("#file", SAMPLES[0])
        await segmented(opened)
        await opened.click("#show-maps")
        await opened.wait_for_selector("#maps:not([hidden])")
        widths = await opened.evaluate("[...document.querySelectorAll('.maps canvas')].map((map) => map.width)")
        assert widths == [568] * 4


RED, BLUE = (20, 30, 140, 110), (200, 160, 300, 230)  # left, top, right, bottom
OUTLINE = (64, 255, 96)
THUMBNAILS = "[...document.querySelectorAll('#rows canvas')].map(({ width, height }) => [width, height])"


def exif_last(png: bytes) -> bytes:
    """Move the chunk eXIf of a PNG behind its pixels, where some viewers do not look for it."""
    begin = png.index(b"eXIf") - 4
    end = begin + 12 + int.from_bytes(png[begin : begin + 4])
    return png[:begin] + png[end:-12] + png[begin:end] + png[-12:]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "PNG with EXIF last", "WEBP"])
async def test_a_picture_that_exif_turns_is_shown_upright_under_its_outline(kind: str) -> None:
    upright = red_box(320, 240, RED)
    upright.paste((0, 0, 255), BLUE)
    files = {turn: turned(upright, turn, kind.split()[0], quality=95, lossless=True) for turn in range(2, 9)}
    if "last" in kind:
        files = {turn: exif_last(content) for turn, content in files.items()}
    async with serving() as it, page(it) as opened:
        for turn, content in files.items():
            await opened.set_input_files("#file", {"name": f"{turn}.png", "mimeType": "", "buffer": content})
            await segmented(opened)
            async with opened.expect_download() as download:
                await opened.click("#save-overlay")
            saved = Image.open(await (await download.value).path()).convert("RGB")
            canvas = Image.open(io.BytesIO(base64.b64decode((await opened.evaluate(SHOWN)).split(",")[1])))
            for drawn in (saved, canvas.convert("RGB")):
                assert drawn.size == upright.size, turn
                pixels = np.asarray(drawn).astype(int)
                rows, columns = np.nonzero((pixels == OUTLINE).all(axis=2))
                around = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
                assert np.abs(np.subtract(around, RED)).max() <= 4, turn
                beside = np.abs(pixels - np.asarray(upright))[:, RED[2] + 4 :]
                assert beside.mean() < 2, turn
        assert it.metric("pranet_decodes_total") == len(files) * (1 if kind == "JPEG" else 2)
        several = [{"name": f"{turn}.png", "mimeType": "", "buffer": files[turn]} for turn in (6, 8)]
        await opened.set_input_files("#file", several)
        await playwright.expect(opened.locator("#gallery-summary")).to_have_text("2 pictures, 2 with a polyp")
        assert await opened.evaluate(THUMBNAILS) == [[96, 72]] * 2


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("bad.png", SAMPLES[0].read_bytes()[:2000], "damaged"),
        ("letter.pdf", b"%PDF-1.7", "JPEG, PNG, WebP, BMP or TIFF"),
        ("bad.mp4", b"no video", "cannot play the video: it is damaged, or not H.264 or VP9"),
    ],
)
async def test_a_bad_file_shows_its_error(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    async with serving() as it, page(it) as opened:
        (tmp_path / name).write_bytes(content)
        await opened.set_input_files("#file", tmp_path / name)
        await playwright.expect(opened.locator("#error")).to_contain_text(said)
        await browser.no_serious_fault(opened)
        await opened.click("[data-sample='polyp-1.jpg']")  # and the page goes on
        await segmented(opened)
        await playwright.expect(opened.locator("#error")).to_be_empty()


RECEIVED = 'Number(document.querySelector("#received").textContent)'


async def test_a_video_file_is_streamed_with_its_polyps_and_each_frame_can_be_saved(tmp_path: Path) -> None:
    film = tmp_path / "red.mp4"
    video(film, (255, 0, 0))
    async with serving() as it, page(it) as opened:
        await opened.set_input_files("#file", film)
        await playwright.expect(opened.locator("#save-json")).to_be_enabled()
        assert await opened.evaluate(browser.GREEN) > 0
        async with opened.expect_download() as download:
            await opened.click("#save-json")
        assert json.loads((await (await download.value).path()).read_text())["polyps"]
        await opened.click("#record")
        await playwright.expect(opened.locator("#record")).to_have_text("Save recording")
        shown = await opened.evaluate(RECEIVED)
        await browser.until(opened, f"{RECEIVED} >= {shown + 5}")
        async with opened.expect_download() as download:
            await opened.click("#stop")  # which saves it, too
        await playwright.expect(opened.locator("#status")).to_have_text("Stopped.")
        saved = await download.value
        assert Path(saved.suggested_filename).stem == "red-polyps"
        with av.open(await saved.path()) as recording:
            frames = [each.to_ndarray(format="rgb24") for each in recording.decode(video=0)]
    assert frames[-1].shape == (240, 320, 3)
    red, green, blue = frames[-1].reshape(-1, 3).mean(axis=0)
    assert red > 100 > blue
    assert green > 20  # of what is marked


async def test_what_is_wrong_with_the_picture_is_shown_on_it(tmp_path: Path) -> None:
    film = tmp_path / "black.mp4"
    video(film, (0, 0, 0))
    async with serving() as it, page(it) as opened:
        await opened.set_input_files("#file", film)
        await playwright.expect(opened.locator("#flags li").first).to_have_text("black")
        await browser.no_serious_fault(opened)


def video(path: Path, colour: tuple[int, int, int]) -> None:
    """Write two seconds of one colour."""
    with VideoWriter(path, 30) as writer:
        for number in range(60):
            writer.write(np.full((240, 320, 3), colour, np.uint8), number / 30)


async def test_the_page_is_used_with_the_keyboard_alone() -> None:
    async with serving() as it, page(it) as opened:

        async def tab_to(selector: str) -> None:
            for _ in range(20):
                await opened.keyboard.press("Tab")
                if await opened.evaluate("(wanted) => document.activeElement.matches(wanted)", selector):
                    return
            raise AssertionError(f"{selector} cannot be reached")

        await tab_to("[data-sample='polyp-1.jpg']")
        await opened.keyboard.press("Enter")
        await segmented(opened)
        for control in ("#file", "#camera", "[name=style]"):
            await tab_to(control)
        marked = await opened.evaluate(browser.GREEN)
        await opened.keyboard.press("ArrowRight")  # mask without outline: blended, so no pure green
        assert await opened.evaluate(browser.GREEN) < marked
        await tab_to("#threshold")
        await opened.keyboard.press("ArrowRight")
        assert await opened.text_content("#threshold-value") == "0.51"
        for control in ("#opacity", "#save-mask", "#save-json", "#show-maps"):
            await tab_to(control)


async def test_where_browsers_give_no_camera_the_page_says_that_it_needs_tls() -> None:
    async with serving() as it, page(it, host="pranet.test") as opened:
        await playwright.expect(opened.locator("#insecure")).to_contain_text("needs TLS")
        await playwright.expect(opened.locator("#camera")).to_be_disabled()
        await browser.no_serious_fault(opened)


@pytest.mark.long
async def test_a_camera_streams_for_ten_seconds_with_a_moving_rate() -> None:
    async with serving() as it, page(it) as opened:
        await opened.click("#camera")
        await playwright.expect(opened.locator("#fps")).not_to_have_text("0.0")
        rates, received = set(), []
        for _ in range(10):
            await asyncio.sleep(1)
            rates.add(await opened.text_content("#fps"))
            received.append(int(await opened.text_content("#received")))
        assert len(rates) > 1
        assert received == sorted(set(received))  # more every second
        assert await opened.evaluate(browser.GREEN) >= 0
        await browser.no_serious_fault(opened)
        await opened.click("#stop")
        await until(lambda: not it.service.streams.active)


@pytest.mark.long
@pytest.mark.parametrize("name", SCREENSHOTS)
async def test_the_page_as_it_looks(name: str, tmp_path: Path) -> None:
    """Leave a picture of the page in the folder SCREENSHOTS (``-m long``): ``SCREENSHOTS=tests/screenshots``."""
    width, height = SCREENSHOTS[name]
    options = {"viewport": {"width": width, "height": height}, "color_scheme": "dark" if name == "dark" else "light"}
    predictor = await asyncio.to_thread(load_predictor, Settings(device="cpu"))
    async with serving(predictor) as it, page(it, **options) as opened:
        if name == "dark":
            await opened.click("#camera")
            while int(await opened.text_content("#received")) < LONG_STREAM:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        else:
            await opened.click("[data-sample='polyp-2.jpg']")
            await segmented(opened)
        if name == "light":
            await opened.click("#show-maps")
            await playwright.expect(opened.locator("#maps")).to_be_visible()
        overflow = await opened.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow == 0
        await browser.no_serious_fault(opened)
        await opened.mouse.move(0, 0)
        picture = Path(os.environ.get("SCREENSHOTS", tmp_path)) / f"page-{name}.jpg"
        await opened.screenshot(path=picture, type="jpeg", quality=80, full_page=name != "phone")
