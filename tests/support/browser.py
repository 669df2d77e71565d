"""The page in Chromium with a camera that shows the synthetic sweep."""

import asyncio
import atexit
import functools
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from service.commands.video.demo import sweep
from tests.support.serving import PATIENCE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LISTENING = re.compile(r"DevTools listening on (ws://\S+)")
FLAGS = [
    "--headless",
    "--no-startup-window",  # nothing to wait for but the pages that tests open
    "--remote-debugging-port=0",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--mute-audio",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP pranet.test 127.0.0.1",  # a name that is not localhost, so no secure page
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
]
MILLISECONDS = 3 * PATIENCE * 1000  # a browser and a network share two cores

GREEN = """() => {
    const canvas = document.getElementById("canvas");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let count = 0;
    for (let i = 0; i < data.length; i += 4) count += data[i] === 64 && data[i + 1] === 255 && data[i + 2] === 96;
    return count;
}"""  # pixels of an outline


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[tuple[Any, list[str]]]:
    """Open a page with a profile of its own; yields it with the list of its console's errors, which grows."""
    playwright = pytest.importorskip("playwright.async_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    playwright.expect.set_options(timeout=MILLISECONDS)
    faults: list[str] = []
    async with playwright.async_playwright() as driver:
        chromium = await driver.chromium.connect_over_cdp(await asyncio.to_thread(_endpoint), timeout=MILLISECONDS)
        context = await chromium.new_context(permissions=["camera"], **options)
        try:
            page = await context.new_page()
            page.set_default_timeout(MILLISECONDS)
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
            await page.goto(url)
            yield page, faults
        finally:
            await context.close()


@functools.cache
def _endpoint() -> str:
    """Start the one Chromium of this process, which takes seconds; return the address of its DevTools."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    camera = Path(folder.name) / "camera.mjpeg"
    camera.write_bytes(b"".join(sweep()))
    command = [CHROMIUM, *FLAGS, f"--use-file-for-fake-video-capture={camera}", f"--user-data-dir={folder.name}"]
    chromium = subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True)
    atexit.register(chromium.wait)
    atexit.register(chromium.terminate)  # the last that is registered runs first
    assert chromium.stderr is not None
    for line in chromium.stderr:
        if found := LISTENING.match(line):
            threading.Thread(target=chromium.stderr.read, daemon=True).start()  # a full pipe would stop it
            return found[1]
    raise AssertionError(f"Chromium ended with {chromium.wait()}")


async def until(page: Any, expression: str) -> None:
    """Wait until a JavaScript expression is true; Playwright's own function needs a weaker Content-Security-Policy."""
    async with asyncio.timeout(MILLISECONDS / 1000):
        while not await page.evaluate(expression):  # noqa: ASYNC110 - nobody sets an event for it
            await asyncio.sleep(0.1)


async def no_serious_fault(page: Any) -> None:
    """Check a page's accessibility with axe."""
    axe = pytest.importorskip("axe_playwright_python.async_playwright")
    results = await axe.Axe().run(page)
    serious = [fault for fault in results.response["violations"] if fault["impact"] in ("serious", "critical")]
    faults = [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in serious]
    assert faults == [], faults
