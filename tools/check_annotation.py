"""``make annotation-check`` (minutes): a real Label Studio, from connecting the back end to the labelling page."""

import contextlib
import io
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import sync_playwright

from service.annotation.run_lengths import encode
from tests.support import processes
from tests.support.browser import CHROMIUM
from tests.support.pictures import ROOT, SAMPLES, Mask, dice, mask_of

SCRIPTS = ROOT / "build" / "label-studio" / "bin"
EMAIL, PASSWORD, LEGACY = "annotator@example.org", "annotator-1", "0123456789abcdef0123456789abcdef01234567"
CONFIG = """<View><Image name="image" value="$image"/><{tag} name="tag" toName="image">
<Label value="Polyp" background="#0000ff"/><Label value="Instrument"/></{tag}></View>"""  # no mucosa is blue
READY = re.compile(r"ready: (http://127\.0\.0\.1:\d+)")
START_SECONDS = 400  # it makes its database first
DECODE = """
import json, sys
from label_studio_sdk.converter.brush import decode_rle
for line in sys.stdin:
    print(json.dumps(decode_rle(json.loads(line)).tolist()))
"""


def decoded(*encodings: list[int]) -> list[np.ndarray]:
    """Return the values that Label Studio's SDK reads."""
    sent = "\n".join(map(json.dumps, encodings))
    done = subprocess.run([SCRIPTS / "python", "-c", DECODE], input=sent, capture_output=True, text=True, check=True)
    return [np.array(json.loads(line)) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def service() -> Iterator[processes.Server]:
    with processes.server() as running:
        yield running


@pytest.fixture(scope="module")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Start Label Studio and yield its API for an annotator with a legacy token."""
    folder = tmp_path_factory.mktemp("label-studio")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [SCRIPTS / "label-studio", "start", "--no-browser", "--data-dir", folder, "--port", port]
    command += ["--internal-host", "127.0.0.1", "--username", EMAIL, "--password", PASSWORD]
    command += ["--user-token", LEGACY, "--enable-legacy-api-token"]
    private = {"ML_BLOCK_LOCAL_IP": "false", "SSRF_PROTECTION_ENABLED": "false", "COLLECT_ANALYTICS": "false"}
    url = f"http://127.0.0.1:{port}"
    with (folder / "log").open("w") as log, httpx.Client(base_url=url, timeout=120, trust_env=False) as api:
        process = subprocess.Popen(list(map(str, command)), env={**os.environ, **private}, stdout=log, stderr=log)
        try:
            until_it_answers(api)
            api.headers["authorization"] = f"Token {LEGACY}"
            yield api
        finally:
            process.terminate()
            process.wait(processes.STOP_SECONDS)


def until_it_answers(api: httpx.Client) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(httpx.TransportError):
            if api.get("/health").is_success:
                return
        time.sleep(0.5)
    raise AssertionError("Label Studio did not start")


@contextlib.contextmanager
def backend(service: processes.Server, api: httpx.Client, token: str, folder: Path) -> Iterator[str]:
    """Run the back end; yield its address."""
    (folder / "token").write_text(token)
    command = [*processes.PROGRAM, "label-studio", "--port", "0", "--server", service.url]
    command += ["--label-studio-url", str(api.base_url), "--label-studio-token-file", str(folder / "token")]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            found = READY.search(process.stdout.readline())
            assert found
            yield found[1]
        finally:
            process.terminate()


def predictions(api: httpx.Client, url: str, tag: str = "BrushLabels") -> list[dict[str, Any]]:
    """Return the predictions of a new project with the sample frames, and one picture that lies elsewhere."""
    made = api.post("/api/projects", json={"title": "polyps", "label_config": CONFIG.format(tag=tag)})
    number = made.raise_for_status().json()["id"]
    for sample in SAMPLES:
        files = {"file": (sample.name, sample.read_bytes(), "image/jpeg")}
        api.post(f"/api/projects/{number}/import", files=files).raise_for_status()
    api.post(f"/api/projects/{number}/import", json=[{"image": "http://198.51.100.1/x.jpg"}]).raise_for_status()
    connected = api.post("/api/ml", json={"url": url, "project": number, "title": "PraNet"})
    assert connected.raise_for_status().json()["readable_state"] == "Connected"
    chosen = {"selectedItems": {"all": True, "excluded": []}}
    action = {"id": "retrieve_tasks_predictions", "project": number}
    api.post("/api/dm/actions", params=action, json=chosen).raise_for_status()
    found = api.get("/api/predictions", params={"project": number}).json()
    return sorted([{**each, "project": number} for each in found], key=lambda each: int(each["task"]))


def masks(service: processes.Server) -> list[Mask]:
    return [mask_of(httpx.post(f"{service.url}/segment", content=each.read_bytes()).content) for each in SAMPLES]


def test_the_sdk_reads_the_masks() -> None:
    random = np.random.default_rng(0)
    shapes = [(1, 1), (1, 7), (7, 1), (61, 75), (64, 64), (353, 201)]
    drawn = [random.random(shape) < share for shape in shapes for share in (0, 0.5, 0.99, 1.1)]
    for mask, values in zip(drawn, decoded(*map(encode, drawn)), strict=True):
        assert np.array_equal(values.reshape(*mask.shape, 4), np.repeat(mask[:, :, None] * 255, 4, axis=2))


@pytest.mark.parametrize("kind", ["legacy", "personal"])
def test_predictions_arrive_with_the_masks_of_the_service(
    service: processes.Server, label_studio: httpx.Client, tmp_path: Path, kind: str
) -> None:
    token = LEGACY if kind == "legacy" else label_studio.post("/api/token/").json()["token"]
    with backend(service, label_studio, token, tmp_path) as url:
        found = predictions(label_studio, url)
    assert len(found) == len(SAMPLES)  # and none for the picture that lies elsewhere
    assert all(0.5 < each["score"] <= 1 and each["model_version"].startswith("pranet-") for each in found)
    for each, mask in zip(found, masks(service), strict=True):
        values = decoded(*(region["value"]["rle"] for region in each["result"]))
        together = np.any([value.reshape(*mask.shape, 4)[:, :, 3] > 0 for value in values], axis=0)
        assert np.array_equal(together, mask)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize("tag", ["BrushLabels", "PolygonLabels"])
def test_the_labelling_page_shows_the_polyp_where_it_is(
    service: processes.Server, label_studio: httpx.Client, tmp_path: Path, tag: str
) -> None:
    with backend(service, label_studio, LEGACY, tmp_path) as url:
        first = predictions(label_studio, url, tag)[0]
    shown = screenshot(str(label_studio.base_url), first["project"], first["task"])
    picture, mask = Image.open(SAMPLES[0]).convert("RGB"), masks(service)[0]
    changes = np.asarray(shown.resize(picture.size), int) - np.asarray(picture, int)
    assert dice(changes[:, :, 2] - changes[:, :, 0] > 30, mask) > 0.9


def screenshot(url: str, project: int, task: int) -> Image.Image:
    """Return the picture of the labelling page with what lies on it, without the tools."""
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]) as browser,
    ):
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(f"{url}/user/login/")
        page.fill("input[name=email]", EMAIL)
        page.fill("input[name=password]", PASSWORD)
        page.click("button[type=submit]")
        page.wait_for_load_state("networkidle")
        page.goto(f"{url}/projects/{project}/data?task={task}")
        drawn = page.locator(".konvajs-content canvas").first
        drawn.wait_for(timeout=60_000)
        page.wait_for_timeout(5_000)  # the region is drawn after the picture; nothing says when
        box = drawn.bounding_box()
        assert box
        taken = page.screenshot(clip={name: box[name] for name in ("x", "y", "width", "height")})  # type: ignore[typeddict-item]
    return Image.open(io.BytesIO(taken)).convert("RGB")
