"""The client takes what people hold, and says what to do about what it cannot take."""

import asyncio
import io
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from pranet_client import (
    AsyncClient,
    Client,
    InvalidInput,
    PixelFormat,
    RawPicture,
    StreamConfig,
    VideoFrame,
)
from tests.support.patching import Patches
from tests.support.pictures import ROOT, encoded, mask_of, red_box
from tests.support.predictors import PATIENCE
from tests.support.serving import Running, serving

BOX = red_box(64, 48, (16, 12, 48, 36))
PICTURE, ARRAY = encoded(BOX), np.asarray(BOX)
PAGE = ROOT / "docs" / "python.md"
EVERY = StreamConfig(policy="POLICY_EVERY")
URL = "http://127.0.0.1"


def turned() -> Image.Image:
    """Return the picture as a phone stores it, on its side, with the orientation in EXIF."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    return Image.open(io.BytesIO(encoded(BOX.transpose(Image.Transpose.ROTATE_90), exif=exif)))


HELD: dict[str, Callable[[Path], Any]] = {
    "path": lambda path: path,
    "str": str,
    "bytes": lambda path: path.read_bytes(),
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "array": lambda path: ARRAY,
    "array-view": lambda path: ARRAY[::-1][::-1],
    "array-of-bgr": lambda path: ARRAY[:, :, ::-1].copy()[:, :, ::-1],
    "pillow": lambda path: BOX,
    "pillow-rgba": lambda path: BOX.convert("RGBA"),
    "pillow-lazy": Image.open,
    "pillow-exif": lambda path: turned(),
}

WRONG: dict[str, tuple[Any, str]] = {
    "none": (None, "NoneType is no picture here; give a path"),
    "number": (5, "int is no picture"),
    "list": ([1, 2], "list is no picture"),
    "empty": (b"", "the picture is empty"),
    "no-file": (Path("nothing.jpg"), "nothing.jpg cannot be read"),
    "folder": (ROOT, "cannot be read"),
    "empty-file": (Path("/dev/null"), "is empty"),
    "float": (ARRAY / np.float32(255), r"array of float32 .* \(array \* 255\)\.round\(\)"),
    "int64": (ARRAY.astype(np.int64), r"astype\(numpy\.uint8\)"),
    "bool": (ARRAY > 0, r"astype\(numpy\.uint8\)"),
    "grey": (ARRAY[:, :, 0], r"numpy\.stack"),
    "alpha": (np.dstack([ARRAY, ARRAY[:, :, :1]]), r"array\[:, :, :3\]"),
    "channels-first": (ARRAY.transpose(2, 0, 1), r"array\.transpose\(1, 2, 0\)"),
    "many": (ARRAY[None], r"one by one"),
    "two-channels": (ARRAY[:, :, :2], r"uint8 \(H, W, 3\)"),
    "no-rows": (ARRAY[:0], r"\(0, 64, 3\) is not a picture"),
    "pillow-16-bit": (Image.new("I;16", (4, 4)), "mode I;16 does not have 8 bits a channel"),
    "pillow-float": (Image.new("F", (4, 4)), "mode F does not have 8 bits a channel"),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "frame.png"
    path.write_bytes(PICTURE)
    return path


def client_of(it: Running, **options: Any) -> AsyncClient:
    return AsyncClient(f"{URL}:{it.port}", f"127.0.0.1:{it.grpc_port}", **options)


def check(mask: Any) -> None:
    assert (mask.dtype, mask.shape) == (np.uint8, (48, 64))
    assert set(np.unique(mask)) == {0, 255}
    assert (mask > 0).sum() == 32 * 24
    assert mask[12:36, 16:48].all()


@pytest.mark.parametrize("name", HELD)
async def test_whatever_holds_a_picture_gives_its_mask_by_every_way(name: str, file: Path) -> None:
    held = HELD[name](file)
    async with serving() as it, client_of(it) as client:
        check((await client.segment(held)).mask)
        check(mask_of(await client.render(held)).astype(np.uint8) * 255)
        (answer,) = [each async for each in client.batch([held])]
        assert answer.segmentation
        check(answer.segmentation.mask)
        (reply,) = [each async for each in client.stream([held], EVERY)]
        assert reply.image is held
        check(reply.mask)


@pytest.mark.parametrize("name", WRONG)
async def test_what_is_no_picture_is_refused_by_every_way_with_advice(name: str) -> None:
    wrong, says = WRONG[name]
    async with serving() as it, asyncio.timeout(PATIENCE), client_of(it) as client:
        for refused in (client.segment, client.render):
            with pytest.raises(InvalidInput, match=says):
                await refused(wrong)
        with pytest.raises(InvalidInput, match=says):
            [each async for each in client.batch([PICTURE, wrong])]
        with pytest.raises(InvalidInput, match=says):
            [each async for each in client.stream([PICTURE, wrong], EVERY)]
        with pytest.raises(InvalidInput, match=says):
            [each async for each in client.stream([VideoFrame(0, wrong, 0.0)], EVERY)]
        assert it.metric("pranet_streams_active") == 0


async def test_every_field_of_an_answer_is_what_the_service_says() -> None:
    async with serving() as it, client_of(it) as client:
        done = await client.segment(ARRAY, threshold=0.25)
        info = await client.info()
        assert (done.width, done.height, done.threshold, done.batch_size) == (64, 48, 0.25, 1)
        (polyp,) = done.polyps
        assert polyp.bounding_box == (16, 12, 32, 24)
        assert polyp.polygon[0] in {(16, 12), (48, 12), (16, 36), (48, 36)}
        assert len({polyp, polyp}) == 1  # it can be a member of a set
        assert polyp.area_fraction == 0.25
        assert done.presence is None
        assert list(done.quality) == ["blurred"]  # its box has one colour
        assert {"decode", "infer", "total"} <= set(done.times)
        assert done.model == info.model
        assert (info.model.engine, info.input_size, info.threshold) == ("fake", 352, it.service.settings.threshold)
        assert len(done.request_id) == 32


@pytest.mark.parametrize("format", ["MASK_FORMAT_PNG", "MASK_FORMAT_RLE", "MASK_FORMAT_BITS"])
async def test_a_reply_has_its_mask_in_every_format(format: Any) -> None:
    frame = VideoFrame(7, RawPicture(PixelFormat.RGB24, 64, 48, 192, ARRAY.tobytes()), 1.0)
    async with serving() as it, client_of(it) as client:
        config = StreamConfig(policy="POLICY_EVERY", mask_format=format)
        good, bad = [reply async for reply in client.stream([frame, b"no picture"], config)]
        check(good.mask)
        assert (good.frame.frame_id, bad.outcome, bad.mask) == (7, "failed", None)


@pytest.mark.parametrize("output", ["OUTPUT_PROBABILITY", "OUTPUT_OVERLAY", "OUTPUT_POLYPS"])
async def test_only_a_mask_is_given_as_a_mask(output: Any) -> None:
    async with serving() as it, client_of(it) as client:
        (reply,) = [each async for each in client.stream([PICTURE], StreamConfig(policy="POLICY_EVERY", output=output))]
        assert reply.outcome == "answered"
        assert (reply.mask is not None) == (output == "OUTPUT_POLYPS")


async def test_a_batch_answers_each_picture_and_names_what_is_wrong_with_one() -> None:
    async with serving() as it, client_of(it) as client:
        answers = [each async for each in client.batch([PICTURE, b"<html>", ARRAY])]
        assert [each.index for each in answers] == [0, 1, 2]
        assert [each.segmentation is None for each in answers] == [False, True, False]
        error = answers[1].error
        assert error
        assert (error.cause, error.status) == ("unsupported-image", 415)
        assert [each async for each in client.batch([])] == []


async def test_an_error_of_the_callers_iterator_ends_a_batch_before_it_is_sent() -> None:
    def plain() -> Iterator[bytes]:
        yield PICTURE
        raise KeyError("mine")

    async def other() -> AsyncIterator[bytes]:
        yield PICTURE
        raise KeyError("mine")

    async with serving() as it, asyncio.timeout(PATIENCE), client_of(it) as client:
        for images in (plain(), other()):
            with pytest.raises(KeyError, match="mine"):
                [each async for each in client.batch(images)]
        assert it.metric("pranet_requests_total", {"transport": "rest", "code": "200"}) == 0


async def test_a_batch_that_is_left_early_gives_back_its_place() -> None:
    async with serving(max_archives=1) as it, asyncio.timeout(PATIENCE), client_of(it) as client:
        for _ in range(3):
            async for answer in client.batch([PICTURE] * 20):
                assert answer.segmentation
                break


async def test_all_of_it_works_without_an_event_loop_and_without_with() -> None:
    def run(url: str, address: str) -> None:
        client = Client(url, address)
        check(client.segment(ARRAY).mask)
        check(mask_of(client.render(BOX)).astype(np.uint8) * 255)
        assert [each.index for each in client.batch(ARRAY for _ in range(3))] == [0, 1, 2]
        assert (client.info().model.engine, client.info().processes) == ("fake", 1)
        replies = list(client.stream([ARRAY, BOX, PICTURE], EVERY))
        assert [reply.frame.frame_id for reply in replies] == [0, 1, 2]
        with pytest.raises(InvalidInput):
            client.segment(ARRAY[0])
        client.close()

    async with serving() as it:
        await asyncio.to_thread(run, f"{URL}:{it.port}", f"127.0.0.1:{it.grpc_port}")


@pytest.mark.parametrize(
    ("url", "target"),
    [("http://10.0.0.7:8000", "10.0.0.7:8001"), ("https://host", "host:8001"), ("http://[::1]:8000/", "[::1]:8001")],
)
async def test_streams_go_to_the_host_of_the_url_by_default(url: str, target: str) -> None:
    async with AsyncClient(url) as client:
        assert client._target == target


WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(("numpy", "PIL", "PIL.Image")))  # their import fails
from pranet_client import Client, InvalidInput
with Client("{url}", "{address}") as client:
    done = client.segment("{file}")
    assert client.render("{file}").startswith(b"\\x89PNG")
    (reply,) = client.stream(["{file}"])
    for ask in (lambda: done.mask, lambda: reply.mask):
        try:
            ask()
        except InvalidInput as error:
            print(done.polyps[0].bounding_box, reply.outcome, error)
"""


async def test_without_numpy_and_pillow_only_arrays_are_missing(file: Path) -> None:
    async with serving() as it:
        code = WITHOUT.format(url=f"{URL}:{it.port}", address=f"127.0.0.1:{it.grpc_port}", file=file)
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", code],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "client")},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("(16, 12, 32, 24) answered this needs numpy; install") == 2


TYPED = """
import numpy as np
from pranet_client import AsyncClient, Client, Reply, Segmentation

def use(client: Client) -> None:
    done: Segmentation = client.segment("a.jpg", threshold=0.5)
    client.segment(np.zeros((4, 4, 3), np.uint8))
    replies: list[Reply] = list(client.stream([b"frame"]))
    client.segment(5)
    client.segment("a.jpg", treshold=0.5)
    client.render("a.jpg", "masks")
    client.stream([5])

async def use_too(client: AsyncClient) -> None:
    done: Segmentation = await client.segment(b"")
    async for answer in client.batch(["a.jpg"]):
        print(answer.index)
"""


@pytest.mark.long
@pytest.mark.slow
def test_a_strict_type_checker_sees_right_and_wrong_calls(tmp_path: Path) -> None:
    (tmp_path / "typed.py").write_text(TYPED)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache", "typed.py"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "MYPYPATH": str(ROOT / "client"), "PYTHONPATH": str(ROOT / "client")},
        capture_output=True,
        text=True,
        check=False,
    )
    wrong = {int(line.split(":")[1]) for line in checked.stdout.splitlines() if line.startswith("typed.py:")}
    assert {line for line in wrong if ": error" in checked.stdout} == {9, 10, 11, 12}, checked.stdout


async def test_the_camera_loop_of_the_documentation_shows_each_answered_frame_with_its_mask(
    tmp_path: Path, patched: Patches
) -> None:
    """The loop as it stands on the page, with a video file for the camera and a list for the screen."""
    (block,) = [each for each in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "imshow" in each]
    video, shown = tmp_path / "camera.avi", list[Any]()
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(3):
        writer.write(ARRAY[:, :, ::-1])
    writer.release()
    patched("cv2", "imshow", lambda name, picture: shown.append(picture))
    patched("cv2", "waitKey", lambda milliseconds: -1)
    async with serving() as it:
        here = block.replace("VideoCapture(0)", f"VideoCapture({str(video)!r})")
        here = here.replace("127.0.0.1:8000", f"127.0.0.1:{it.port}")
        here = here.replace("127.0.0.1:8001", f"127.0.0.1:{it.grpc_port}")
        await asyncio.to_thread(exec, here, {})
    assert 1 <= len(shown) <= 3
    inside, outside = shown[-1][24, 32], shown[-1][4, 4]
    assert inside[1] == 255  # green
    assert inside[2] > 200  # on red, which OpenCV has last
    assert outside.max() < 60
