"""Video on the page: pause, step, seek, and a service that goes away and comes back."""

import asyncio
import signal
import socket
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from service.commands.video.writer import VideoWriter
from service.frames.quality import FROZEN_SECONDS
from tests.support import browser
from tests.support.processes import fake_server
from tests.support.serving import serving

playwright = pytest.importorskip("playwright.async_api")

pytestmark = pytest.mark.slow

SECONDS, RED_FROM = 4, 2  # of the film


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Black for two seconds, then red for two."""
    path = tmp_path / "film.mp4"
    with VideoWriter(path, 30) as writer:
        for number in range(SECONDS * 30):
            colour = (255, 0, 0) if number >= RED_FROM * 30 else (0, 0, 0)
            writer.write(np.full((240, 320, 3), colour, np.uint8), number / 30)
    return path


async def test_a_figure_that_is_not_known_yet_has_no_unit(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "black.mp4", fps=30) as writer:
        for number in range(60):
            writer.write(np.zeros((240, 320, 3), np.uint8), number / 30)
    async with serving() as it, browser.opened(f"http://127.0.0.1:{it.port}/") as (page, _):
        await page.set_input_files("#file", tmp_path / "black.mp4")
        await playwright.expect(page.locator("#found")).to_have_text("No polyp found. Quality: black")
        await playwright.expect(page.locator("#age + small")).to_be_visible()
        await playwright.expect(page.locator("#first")).to_be_empty()
        await playwright.expect(page.locator("#first + small")).to_be_hidden()


async def test_a_video_is_paused_stepped_and_sought_and_its_first_polyp_is_timed(film: Path) -> None:
    async with serving() as it, browser.opened(f"http://127.0.0.1:{it.port}/") as (page, faults):
        await page.set_input_files("#file", film)
        await playwright.expect(page.locator("#found")).to_contain_text("1 polyp, 100.0 % of the picture")
        first = page.locator("#first")
        assert RED_FROM <= float(await first.text_content()) <= SECONDS
        await page.click("#pause")
        await playwright.expect(page.locator("#pause")).to_have_text("Play")
        await page.fill("#seek", "1")
        await playwright.expect(page.locator("#found")).to_have_text("No polyp found. Quality: black")
        await playwright.expect(page.locator("#time")).to_have_text("1.0 / 4.0 s")
        await page.fill("#seek", str(RED_FROM))
        await playwright.expect(page.locator("#found")).to_contain_text("1 polyp, 100.0 % of the picture")
        await playwright.expect(first).to_have_text("2.0")
        await playwright.expect(page.locator("#polyps li")).to_have_count(1)
        await page.focus("#back")
        for _ in range(3):
            await page.keyboard.press("Enter")
        await playwright.expect(page.locator("#found")).to_have_text("No polyp found. Quality: black")
        await playwright.expect(page.locator("#spoken")).to_have_text("No polyp found. Quality: black")
        await asyncio.sleep(FROZEN_SECONDS)  # black again then, but not because a cable stands still
        received = int(await page.text_content("#received"))
        await page.keyboard.press("Enter")
        await browser.until(page, f"Number(document.getElementById('received').textContent) > {received}")
        await playwright.expect(page.locator("#found")).to_have_text("No polyp found. Quality: black")
        assert faults == []


async def test_each_frame_of_a_video_is_sent_once(tmp_path: Path) -> None:
    rate = 5
    with VideoWriter(tmp_path / "slow.mp4", rate) as writer:
        for number in range(rate * 4):
            writer.write(np.full((240, 320, 3), 10 * number, np.uint8), number / rate)
    async with serving() as it, browser.opened(f"http://127.0.0.1:{it.port}/") as (page, faults):
        began = time.monotonic()
        await page.set_input_files("#file", tmp_path / "slow.mp4")
        await browser.until(page, "Number(document.getElementById('received').textContent) > 12")
        sent = int(await page.text_content("#received"))
        assert sent <= rate * (time.monotonic() - began) + 2  # the page itself looks 30 times a second
        assert faults == []


async def test_a_video_of_which_the_browser_plays_only_the_sound_is_refused(tmp_path: Path) -> None:
    film = tmp_path / "old.mp4"
    with av.open(str(film), "w") as container:
        picture, sound = container.add_stream("mpeg4", rate=25), container.add_stream("aac", rate=44100)
        picture.width, picture.height, picture.pix_fmt = 320, 240, "yuv420p"
        for _ in range(50):
            container.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((240, 320, 3), np.uint8))))
        for _ in range(100):
            frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
            frame.sample_rate = 44100
            container.mux(sound.encode(frame))
        container.mux([*picture.encode(), *sound.encode()])
    async with serving() as it, browser.opened(f"http://127.0.0.1:{it.port}/") as (page, faults):
        await page.set_input_files("#file", film)
        await playwright.expect(page.locator("#error")).to_contain_text("cannot play the video: it is damaged")
        await playwright.expect(page.locator("#live")).to_be_hidden()
        assert not it.service.streams.active
        assert faults == []


async def test_a_video_that_stands_still_does_not_blame_a_camera(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "slides.mp4", 0.1) as writer:
        for number in range(2):
            writer.write(np.full((240, 320, 3), 100 * number, np.uint8), number * 10)
    async with serving() as it, browser.opened(f"http://127.0.0.1:{it.port}/") as (page, faults):
        await page.set_input_files("#file", tmp_path / "slides.mp4")
        await playwright.expect(page.locator("#status")).to_have_text("No new picture for 2 seconds.")
        assert faults == []


@pytest.mark.long
async def test_a_service_that_is_killed_is_waited_for_and_used_again() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    status = "#status"
    with fake_server("--port", port) as first:
        async with browser.opened(first.url) as (page, _):
            await page.click("#camera")
            await browser.until(page, f"({browser.GREEN})() > 0")
            await asyncio.to_thread(killed, first.process.kill, first.process.wait)
            await playwright.expect(page.locator(status)).to_contain_text("The connection to the service was lost.")
            await playwright.expect(page.locator(status)).to_contain_text("The service cannot be reached.")
            await playwright.expect(page.locator("#countdown")).to_contain_text(" s.")
            await playwright.expect(page.locator("#save-mask")).to_be_disabled()
            assert await page.evaluate(browser.GREEN) == 0  # no mask that nobody renews
            await playwright.expect(page.locator("#age")).to_be_empty()
            with fake_server("--port", port):
                await playwright.expect(page.locator(status)).to_have_text("Streaming.")
                await browser.until(page, f"({browser.GREEN})() > 0")
                await page.click("#stop")


def killed(kill: Callable[[], None], wait: Callable[[], Any]) -> None:
    kill()
    wait()


KEEPING_THE_CAMERA = """() => {
    const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (wanted) => (window.camera = await ask(wanted));
}"""


@pytest.mark.one_process
async def test_a_mask_that_nobody_renews_is_taken_away_and_a_camera_that_is_unplugged_is_said() -> None:
    status = "#status"
    with fake_server() as server:
        async with browser.opened(server.url) as (page, faults):
            await page.evaluate(KEEPING_THE_CAMERA)
            await page.click("#camera")
            await browser.until(page, f"({browser.GREEN})() > 0")
            server.process.send_signal(signal.SIGSTOP)  # as a network that is gone: nothing closes the connection
            try:
                await playwright.expect(page.locator(status)).to_contain_text("No mask for 2 seconds")
                assert await page.evaluate(browser.GREEN) == 0
                await playwright.expect(page.locator("#fps")).to_have_text("0.0")
            finally:
                server.process.send_signal(signal.SIGCONT)
            await playwright.expect(page.locator(status)).to_have_text("Streaming.")
            await browser.until(page, f"({browser.GREEN})() > 0")
            await page.evaluate("window.camera.getVideoTracks()[0].dispatchEvent(new Event('ended'))")
            await playwright.expect(page.locator("#error")).to_contain_text("The camera was disconnected")
            await playwright.expect(page.locator("#stop")).to_be_hidden()
            assert faults == []
