"""What the page says it found, what it lets a reader take away, and that nothing of it belongs to another picture."""

import asyncio
import csv
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.presence import Presence
from tests.support import browser
from tests.support.pictures import ROOT, SAMPLES, encoded, red_box
from tests.support.predictors import RedPredictor
from tests.support.serving import Running, serving

playwright = pytest.importorskip("playwright.async_api")

pytestmark = pytest.mark.slow

RESULTS = ("#save-mask", "#save-overlay", "#save-json", "#show-maps")
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
    async with serving() as it, browser.opened(f"http://127.0.0.1:{it.port}/") as (page, _):
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
        await browser.until(page, f"({PIXELS})().width !== {first['width']}")
        second = await page.evaluate(PIXELS)
        assert (second["green"], second["hidden"]) == (0, False)
        gate.set()
        await playwright.expect(page.locator("#status")).to_contain_text("Segmented in")
        await browser.until(page, f"({PIXELS})().green > 0")
        await page.set_input_files("#file", tmp_path / "bad.png")
        await playwright.expect(page.locator("#error")).not_to_be_empty()
        assert (await page.evaluate(PIXELS))["hidden"]
        for button in RESULTS:
            await playwright.expect(page.locator(button)).to_be_disabled()


async def test_an_answer_that_does_not_come_is_asked_for_again_and_said_in_a_sentence() -> None:
    busy = {"detail": "the queue is full; try again later"}
    refusals = [
        ("The service cannot be reached. Trying again", lambda route: route.abort("connectionrefused")),
        ("The queue is full; try again later. Trying again", lambda route: route.fulfill(status=429, json=busy)),
        ("A proxy in front of the service does not reach it.", lambda route: route.fulfill(status=502, body="<html>")),
    ]
    async with serving() as it, browser.opened(f"http://127.0.0.1:{it.port}/") as (page, _):
        for sentence, refuse in refusals:
            await page.route("**/segment*", refuse)
            await page.click("[data-sample='polyp-1.jpg']")
            await playwright.expect(page.locator("#status")).to_contain_text(sentence)
            await playwright.expect(page.locator("#countdown")).to_have_text(re.compile(r" in \d s\."))
            await playwright.expect(page.locator("#error")).to_be_empty()
            await page.unroute("**/segment*")
            await playwright.expect(page.locator("#status")).to_contain_text("Segmented in")
            await playwright.expect(page.locator("#countdown")).to_be_empty()
        _, refuse = refusals[1]
        await page.route("**/segment*", refuse)
        async with page.expect_download():
            await page.click("#save-json")
            await playwright.expect(page.locator("#countdown")).to_have_text(re.compile(r" in \d s\."))
            await page.unroute("**/segment*")
        await playwright.expect(page.locator("#status")).to_be_empty()


CUT_ONCE = """() => {
    const real = window.fetch;
    window.fetch = async (...given) => {
        const answer = await real(...given);
        window.fetch = real;
        const lost = new ReadableStream({ start: (body) => body.error(new TypeError("network error")) });
        return new Response(lost, answer);
    };
}"""  # an answer whose connection is lost after its headers


async def test_an_answer_that_breaks_off_is_asked_for_again() -> None:
    async with serving() as it, browser.opened(f"http://127.0.0.1:{it.port}/") as (page, faults):
        await playwright.expect(page.locator("#status")).to_have_text("Ready.")
        await page.evaluate(CUT_ONCE)
        await page.click("[data-sample='polyp-1.jpg']")
        await playwright.expect(page.locator("#status")).to_contain_text("The service cannot be reached. Trying again")
        await playwright.expect(page.locator("#status")).to_contain_text("Segmented in")
        await playwright.expect(page.locator("#error")).to_be_empty()
        assert faults == []


SIDE = 352  # pixels: the network's input, so that no resizing blurs an edge
CORNER = (0, 0, 176, 176)  # a quarter of the picture
SPOT = (300, 300, 320, 320)  # 0.3 %


@pytest.fixture
def red_with_presence() -> RedPredictor:
    """Score 0.97 for red anywhere, 0.01 for black; 0.50 and more means a polyp."""
    predictor = RedPredictor()
    predictor.model = replace(predictor.model, presence=Presence(0.5, -0.5))
    return predictor


async def test_the_page_says_what_it_found_to_readers_and_listeners(
    red_with_presence: RedPredictor, tmp_path: Path
) -> None:
    two = red_box(SIDE, SIDE, CORNER)
    two.paste((255, 0, 0), SPOT)
    score = "presence 0.97 (from 0.50 on)"
    findings = {
        "one.png": (red_box(SIDE, SIDE, CORNER), f"1 polyp, 25.0 % of the picture, {score}. Quality: blurred"),
        "two.png": (two, f"2 polyps, 25.3 % of the picture, {score}. Quality: blurred"),
        "none.png": (Image.new("RGB", (SIDE, SIDE)), "No polyp found, presence 0.01. Quality: black"),
    }
    async with (
        serving(red_with_presence) as it,
        browser.opened(f"http://127.0.0.1:{it.port}/") as (page, faults),
    ):
        for name, (picture, sentence) in findings.items():
            picture.save(tmp_path / name)
            await page.set_input_files("#file", tmp_path / name)
            await playwright.expect(page.locator("#found")).to_have_text(sentence)
            await playwright.expect(page.locator("#spoken[aria-live=polite]")).to_have_text(sentence)
            await playwright.expect(page.locator("#canvas")).to_have_attribute("aria-label", f"{name}: {sentence}")
        await playwright.expect(page.locator("#polyps li")).to_have_count(0)
        await polyps_are_listed_and_marked(page, tmp_path / "two.png")
        await the_view_is_changed_with_the_keyboard(page)
        await programs_do_the_same(page, tmp_path)
        await page.fill("#threshold", "0.99")  # the edge of no box is blurred, so that nothing else changes
        await playwright.expect(page.locator("#found")).to_contain_text("2 polyps, 25.3 %")
        assert faults == []


async def polyps_are_listed_and_marked(page: Any, picture: Path) -> None:
    await page.set_input_files("#file", picture)
    polyps = page.locator("#polyps button")
    await playwright.expect(polyps).to_have_text(
        ["Polyp 1: 25.0 %, mean probability 1.00", "Polyp 2: 0.3 %, mean probability 1.00"]
    )
    unmarked = await page.evaluate(PIXELS)
    for mark, leave in (("hover", "mouse.move(0, 0)"), ("focus", "blur")):
        await getattr(polyps.nth(1), mark)()
        assert (await page.evaluate(PIXELS))["sum"] != unmarked["sum"]
        await (page.mouse.move(0, 0) if mark == "hover" else getattr(polyps.nth(1), leave)())
        assert await page.evaluate(PIXELS) == unmarked


async def the_view_is_changed_with_the_keyboard(page: Any) -> None:
    await page.focus("#frame")
    await page.keyboard.press("+")
    await page.keyboard.press("ArrowRight")
    placed = await page.evaluate("document.getElementById('canvas').style.transform")
    assert "scale(1.25)" in placed
    assert "translate(-40px" in placed
    await page.keyboard.press("0")
    assert await page.evaluate("document.getElementById('canvas').style.transform") == ""
    await page.focus("#side-by-side")
    await page.keyboard.press("Enter")
    await playwright.expect(page.locator("#plain")).to_be_visible()
    await page.keyboard.press("Enter")
    await playwright.expect(page.locator("#plain")).to_be_hidden()
    outlined = await page.evaluate(PIXELS)
    await page.check("[name=style][value=heat]", force=True)
    assert (await page.evaluate(PIXELS))["sum"] != outlined["sum"]
    await page.check("[name=style][value=both]", force=True)


async def programs_do_the_same(page: Any, folder: Path) -> None:
    """The texts to copy are run as they are, beside the picture."""
    await page.click("#programs summary")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "client")))}
    for form, command in (("curl", ("bash", "-c")), ("python", (sys.executable, "-c"))):
        await page.click(f"#copy-{form}")
        await playwright.expect(page.locator("#status")).to_have_text(re.compile("Copied|Selected"))
        done = await asyncio.to_thread(
            subprocess.run,
            [*command, await page.text_content(f"#{form}")],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        count = len(json.loads(done.stdout)["polyps"]) if form == "curl" else int(done.stdout.split()[0])
        assert count == 2


GIVE = """([kind, files]) => {
    const data = new DataTransfer();
    for (const [name, bytes] of files) data.items.add(new File([Uint8Array.from(bytes)], name));
    const event = kind === "paste" ? new ClipboardEvent(kind, { clipboardData: data, bubbles: true })
        : new DragEvent(kind, { dataTransfer: data, bubbles: true });
    document.getElementById("drop").dispatchEvent(event);
}"""


async def test_several_pictures_get_a_row_each_and_one_zip(red_with_presence: RedPredictor) -> None:
    files = {
        "a, b.png": encoded(red_box(SIDE, SIDE, CORNER)),
        "a, b.PNG": encoded(red_box(SIDE, SIDE, SPOT)),
        "none.png": encoded(Image.new("RGB", (SIDE, SIDE))),
        "bad.png": b"no picture",
    }
    chosen = [{"name": name, "mimeType": "image/png", "buffer": content} for name, content in files.items()]
    film = {"name": "film.mp4", "mimeType": "video/mp4", "buffer": b"film"}
    given = [[name, list(content)] for name, content in files.items()]
    async with (
        serving(red_with_presence) as it,
        browser.opened(f"http://127.0.0.1:{it.port}/") as (page, _),
    ):
        await page.evaluate(GIVE, ["paste", given])
        await playwright.expect(page.locator("#rows button")).to_have_count(4)
        await page.evaluate(GIVE, ["drop", given[:2]])  # in the middle of the ones before
        await playwright.expect(page.locator("#gallery-summary")).to_have_text("2 pictures, 2 with a polyp")
        await page.set_input_files("#file", chosen)
        await playwright.expect(page.locator("#gallery-summary")).to_have_text("4 pictures, 2 with a polyp, 1 failed")
        told = "3 of 4 pictures are segmented; the list says what is wrong with the others."
        await playwright.expect(page.locator("#status")).to_have_text(told)
        rows = page.locator("#rows button")
        await playwright.expect(rows.nth(0)).to_contain_text("1 polyp, 25.0 % of the picture")
        await playwright.expect(rows.nth(2)).to_contain_text("No polyp found, presence 0.01")
        await playwright.expect(rows.nth(3)).to_contain_text("JPEG, PNG, WebP, BMP or TIFF")
        await rows.nth(0).focus()
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("Enter")
        await playwright.expect(page.locator("#found")).to_contain_text("1 polyp, 0.3 % of the picture")
        async with page.expect_download() as download:
            await page.click("#save-zip")
        content = (await (await download.value).path()).read_bytes()
        await the_zip_holds_what_the_service_says(it, content, files)
        await page.set_input_files("#file", [chosen[0], film])
        await playwright.expect(rows.nth(1)).to_contain_text("This is a video; open it alone.")


async def the_zip_holds_what_the_service_says(it: Running, content: bytes, files: dict[str, bytes]) -> None:
    archive = zipfile.ZipFile(io.BytesIO(content))
    assert archive.testzip() is None
    stems = ["a, b", "a, b-2", "none"]
    pictures = [f"{folder}/{stem}.png" for stem in stems for folder in ("masks", "overlays")]
    assert archive.namelist() == [*pictures, "results.csv", "results.json"]
    for stem, picture in zip(stems, files.values(), strict=False):
        mask = await it.rest.post("/segment", content=picture)
        ours = np.asarray(Image.open(io.BytesIO(archive.read(f"masks/{stem}.png"))).convert("L"))
        assert np.array_equal(ours, np.asarray(Image.open(io.BytesIO(mask.content)).convert("L")))
    rows = list(csv.DictReader(io.StringIO(archive.read("results.csv").decode())))
    assert [(row["name"], row["polyps"], row["presence"]) for row in rows[:3]] == [
        ("a, b.png", "1", "0.97"),
        ("a, b.PNG", "1", "0.659"),
        ("none.png", "0", "0.011"),
    ]
    assert "send JPEG" in rows[3]["error"]
    described = json.loads(archive.read("results.json"))
    assert described[0]["polyps"][0]["bounding_box"] == [0, 0, 176, 176]
    names = [f"{stem}.png" for stem in stems]  # of mask and overlay, which pictures of one name need
    assert [row["file"] for row in rows] == [*names, ""]
    assert [each.get("file") for each in described] == [*names, None]


async def test_the_maps_of_one_picture_are_not_shown_below_another() -> None:
    asked, release = asyncio.Event(), asyncio.Event()

    async def late(route: Any) -> None:
        asked.set()
        await release.wait()
        await route.fulfill(content_type="image/png", body=encoded(Image.new("L", (64, 16))))

    async with serving() as it, browser.opened(f"http://127.0.0.1:{it.port}/") as (page, faults):
        await page.set_input_files("#file", SAMPLES[:2])
        await playwright.expect(page.locator("#status")).to_contain_text("All 2 pictures")
        await page.route("**/segment?output=maps", late)
        await page.click("#show-maps")
        await asked.wait()
        await page.click("#rows li:nth-child(2) button")
        await playwright.expect(page.locator("#status")).to_contain_text("Segmented in")
        release.set()
        await page.wait_for_timeout(500)
        await playwright.expect(page.locator("#maps")).to_be_hidden()
        await page.click("#show-maps")
        await playwright.expect(page.locator("#maps")).to_be_visible()
        assert faults == []


UNREADABLE = """() => {
    Blob.prototype.arrayBuffer = () => Promise.reject(new DOMException("", "NotReadableError"));
}"""  # as of a folder, or of a stick that was pulled out


async def test_a_file_that_is_none_costs_no_other_its_results() -> None:
    async def several(route: Any) -> None:
        if "second" in (route.request.post_data_buffer or b"").decode("latin-1"):
            await route.fulfill(content_type="application/x-ndjson", body="{}\n{}\n")
        else:
            await route.continue_()

    files = [
        {"name": "1.png", "mimeType": "image/png", "buffer": encoded(red_box(64, 48, (8, 8, 40, 40)))},
        {"name": "2.dcm", "mimeType": "", "buffer": b"the second has several frames"},
    ]
    async with serving() as it, browser.opened(f"http://127.0.0.1:{it.port}/") as (page, faults):
        await page.route("**/segment*", several)
        await page.set_input_files("#file", files)
        await playwright.expect(page.locator("#rows")).to_contain_text("This file has several frames")
        async with page.expect_download() as download:
            await page.click("#save-zip")
        with zipfile.ZipFile(await (await download.value).path()) as archive:
            rows = list(csv.DictReader(io.StringIO(archive.read("results.csv").decode())))
        assert [row["error"][:28] for row in rows] == ["", "This file has several frames"]
        await page.evaluate(UNREADABLE)
        await page.set_input_files("#file", files[:1])
        await playwright.expect(page.locator("#error")).to_contain_text("This file cannot be read")
        assert faults == []


async def test_the_page_follows_the_service_in_its_weights_and_its_threshold() -> None:
    predictor = RedPredictor()
    async with (
        serving(predictor, threshold=0.345) as it,
        browser.opened(f"http://127.0.0.1:{it.port}/") as (page, faults),
    ):
        await playwright.expect(page.locator("#threshold-value")).to_have_text("0.345")
        predictor.model = replace(predictor.model, model_id="renewed-1")
        it.service.model_slot._name(predictor.model)
        await page.click("[data-sample='polyp-1.jpg']")
        await playwright.expect(page.locator("#model")).to_contain_text("renewed-")
        await page.click("#programs summary")
        await playwright.expect(page.locator("#curl")).to_contain_text("threshold=0.345")
        await page.fill("#threshold", "0.7")
        await playwright.expect(page.locator("#curl")).to_contain_text("threshold=0.7")
        await page.click("[data-sample='polyp-2.jpg']")
        await playwright.expect(page.locator("#curl")).to_contain_text("polyp-2.jpg")
        assert faults == []


async def test_the_threshold_of_the_service_counts_for_pictures_that_were_answered_before_it_came() -> None:
    faint = Image.new("RGB", (SIDE, SIDE))
    faint.paste((140, 0, 0), CORNER)  # probability 0.69
    chosen = [{"name": f"{n}.png", "mimeType": "image/png", "buffer": encoded(faint)} for n in range(2)]
    async with serving(threshold=0.9) as it, browser.opened(f"http://127.0.0.1:{it.port}/") as (page, _):
        await page.route("**/info", lambda route: route.fulfill(status=503, json={"detail": "the service starts"}))
        await page.reload()
        await page.set_input_files("#file", chosen)
        await playwright.expect(page.locator("#gallery-summary")).to_have_text("2 pictures, 2 with a polyp")
        await page.unroute("**/info")
        await playwright.expect(page.locator("#threshold-value")).to_have_text("0.90")
        await playwright.expect(page.locator("#gallery-summary")).to_have_text("2 pictures, 0 with a polyp")
        await playwright.expect(page.locator("#rows button").nth(1)).to_contain_text("No polyp found")


async def test_a_score_just_below_its_threshold_is_never_shown_as_on_it() -> None:
    predictor = RedPredictor()
    predictor.model = replace(predictor.model, presence=Presence(0.0, -0.012))  # 0.497 for everything
    async with serving(predictor) as it, browser.opened(f"http://127.0.0.1:{it.port}/") as (page, _):
        await page.click("[data-sample='polyp-1.jpg']")
        await playwright.expect(page.locator("#found")).to_contain_text("but presence 0.49 (from 0.50 on)")
