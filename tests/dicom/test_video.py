"""DICOM videos: an MPEG-2, H.264 or H.265 stream in an object, segmented frame by frame."""

import base64
import gc
import io
import json
import sys
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import encapsulate, itemize_fragment
from pydicom.uid import HEVCMP51, MPEG2MPML, MPEG4HP41, UID

from service.commands.main import main
from service.commands.segment import session
from service.errors import ServiceError
from tests.support import processes, videos
from tests.support.dicom_objects import BOXES, DICOM, HAS_DICOM, NO_DICOM, dicom, segmentation, sent, valid, written
from tests.support.patching import Patches
from tests.support.pictures import SAMPLES, dice, mask_of, red_box
from tests.support.predictors import RedPredictor
from tests.support.processes import resident_bytes
from tests.support.serving import serving

if not HAS_DICOM:
    pytest.skip(NO_DICOM, allow_module_level=True)

from service.dicom import study
from service.dicom import video as dicom_video

PICTURES = [red_box(160, 128, box) for box in BOXES]
MASKS = [np.asarray(each)[..., 0] > 0 for each in PICTURES]
NDJSON = {"accept": "application/x-ndjson"}
CODINGS = {  # transfer syntax, container of FFmpeg, encoder
    "MPEG-2 in a transport stream": (MPEG2MPML, "mpegts", "mpeg2video"),
    "MPEG-2 in a program stream": (MPEG2MPML, "mpeg", "mpeg2video"),
    "MPEG-2 alone": (MPEG2MPML, "mpeg2video", "mpeg2video"),
    "H.264 in MP4": (MPEG4HP41, "mp4", "libx264"),
    "H.264 in a transport stream": (MPEG4HP41, "mpegts", "libx264"),
    "H.264 alone": (MPEG4HP41, "h264", "libx264"),
    "H.265 alone": (HEVCMP51, "hevc", "libx265"),
}


def stream(pictures: Sequence[Image.Image], container: str = "h264", encoder: str = "libx264") -> bytes:
    made = io.BytesIO()
    with av.open(made, "w", format=container) as muxer:
        track = muxer.add_stream(encoder, rate=25)
        track.width, track.height = pictures[0].size
        track.pix_fmt, track.bit_rate = "yuv420p", 4_000_000
        for picture in pictures:
            muxer.mux(track.encode(av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")))
        muxer.mux(track.encode())
    return made.getvalue()


def video(content: bytes, syntax: UID = MPEG4HP41, **attributes: Any) -> Dataset:
    made = dicom(PICTURES, PhotometricInterpretation="YBR_PARTIAL_420")
    made.PixelData = encapsulate([content])
    made["PixelData"].is_undefined_length = True
    made.file_meta.TransferSyntaxUID = syntax
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize("coding", CODINGS)
async def test_each_frame_of_a_video_is_answered_with_its_mask(coding: str) -> None:
    syntax, container, encoder = CODINGS[coding]
    async with serving() as it:
        answer = await sent(it, video(stream(PICTURES, container, encoder), syntax), "?output=mask", **NDJSON)
    assert answer.status_code == 200, answer.text
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [(line["name"], line["status"]) for line in lines] == [("1", 200), ("2", 200), ("3", 200)]
    for line, mask in zip(lines, MASKS, strict=True):
        assert dice(mask_of(base64.b64decode(line["png"])), mask) > 0.95


async def test_a_cover_before_the_tracks_of_a_video_is_not_segmented(tmp_path: Path) -> None:
    file = tmp_path / "covered.mp4"
    file.write_bytes(stream(PICTURES, "mp4"))
    content = videos.covered(file, SAMPLES[0].read_bytes()).read_bytes()
    async with serving() as it:
        answer = await sent(it, video(content), "?output=mask", **NDJSON)
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["status"] for line in lines] == [200] * len(PICTURES)
    for line, mask in zip(lines, MASKS, strict=True):
        assert dice(mask_of(base64.b64decode(line["png"])), mask) > 0.95


async def test_a_segmentation_refers_to_the_frames_of_a_video(tmp_path: Path) -> None:
    source = video(stream(PICTURES))
    async with serving() as it:
        answer = await sent(it, source, accept="application/dicom")
    assert answer.status_code == 200, answer.text
    made = segmentation(answer.content)
    pixels = made.get_pixels_by_source_frame(source.SOPInstanceUID, [1, 2, 3])[..., 0]
    assert [dice(each > 0, mask) > 0.95 for each, mask in zip(pixels, MASKS, strict=True)] == [True] * 3
    assert (made.LossyImageCompression, made.LossyImageCompressionMethod) == ("01", "ISO_14496_10")
    (tmp_path / "seg.dcm").write_bytes(answer.content)
    valid(tmp_path / "seg.dcm")


@pytest.mark.parametrize("frames", [1, 2])
async def test_a_video_may_lack_its_offset_table_or_have_one(frames: int) -> None:
    content = stream(PICTURES)
    content += bytes(len(content) % 2)
    source = video(content)
    half = len(content) // 4 * 2
    parts = [content[:half], content[half:]] if frames == 2 else [content]
    without = b"".join(map(itemize_fragment, parts))
    for table in (b"", itemize_fragment(b""), itemize_fragment(bytes(4))):
        source.PixelData = table + without
        pictures = [frame() for frame in study.read(written(source), 10**6).frames]
        assert [(picture.width, picture.height) for picture in pictures] == [(160, 128)] * 3


BAD: dict[str, tuple[bytes, dict[str, Any], int, str]] = {
    "no video": (b"no video at all" * 100, {}, 422, "holds no video that can be read"),
    "a playlist, which would open another file": (b"#EXTM3U\n#EXTINF:1\n/dev/null\n", {}, 422, "holds no video"),
    "a container that DICOM does not have": (stream(PICTURES, "matroska"), {}, 422, "holds no video"),
    "a picture": (SAMPLES[0].read_bytes(), {}, 422, "holds no video"),
}


@pytest.mark.parametrize("name", BAD)
async def test_what_is_no_video_is_refused_as_a_whole(name: str) -> None:
    content, attributes, status, reason = BAD[name]
    async with serving() as it:
        answer = await sent(it, video(content, **attributes), **NDJSON)
    assert (answer.status_code, reason in answer.json()["detail"]) == (status, True), answer.text


@pytest.mark.parametrize(
    ("attributes", "right", "reason"),
    [
        ({"NumberOfFrames": 5}, 3, "declares 5 frames, and the DICOM video has only 3"),
        ({"NumberOfFrames": 2}, 1, "declares 2 frames, and the DICOM video has more"),
        ({"Rows": 120}, 0, "correct Rows and Columns"),
    ],
)
async def test_frames_that_are_not_as_declared_are_accounted_for(
    attributes: dict[str, int], right: int, reason: str
) -> None:
    async with serving() as it:
        answer = await sent(it, video(stream(PICTURES), **attributes), **NDJSON)
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert len(lines) == attributes.get("NumberOfFrames", 3)
    assert [line["status"] for line in lines] == [200] * right + [422] * (len(lines) - right)
    assert all(reason in line["error"]["detail"] for line in lines[right:])


async def test_a_video_that_breaks_off_is_answered_up_to_there() -> None:
    content = stream([PICTURES[number % 3] for number in range(50)], "mpegts", "mpeg2video")
    async with serving() as it:
        answer = await sent(it, video(content[: len(content) // 2], NumberOfFrames=50), **NDJSON)
    statuses = [json.loads(line)["status"] for line in answer.text.splitlines()]
    assert len(statuses) == 50
    assert 10 < statuses.index(422) < 40
    assert set(statuses[statuses.index(422) :]) == {422}


async def test_a_frame_whose_pixels_were_made_up_is_an_error_of_that_frame() -> None:
    content = bytearray(stream([PICTURES[number % 3] for number in range(30)], "mpegts", "mpeg2video"))
    middle = len(content) // 2
    content[middle : middle + 100] = bytes(100)
    async with serving() as it:
        answer = await sent(it, video(bytes(content), NumberOfFrames=30), **NDJSON)
    lines = [json.loads(line) for line in answer.text.splitlines()]
    damaged = [line for line in lines if line["status"] != 200]
    assert (len(lines), {line["status"] for line in damaged}) == (30, {422})
    assert 1 <= len(damaged) < 20
    for number, line in enumerate(lines):
        if line["status"] == 200:
            assert dice(mask_of(base64.b64decode(line["png"])), MASKS[number % 3]) > 0.95


def test_frames_may_be_asked_for_out_of_order() -> None:
    numbers = [number % 3 for number in range(12)]
    frames = study.read(written(video(stream([PICTURES[each] for each in numbers]), NumberOfFrames=12)), 10**6).frames
    for index in (3, 1, 0, 2, 11, *range(4, 11)):
        picture = frames[index]()
        red = np.frombuffer(picture.data, np.uint8).reshape(128, 160, 3)[..., 0] > 127
        assert dice(red, MASKS[numbers[index]]) > 0.95


def test_frames_may_be_asked_for_again_as_after_a_change_of_weights() -> None:
    frames = study.read(written(video(stream(PICTURES))), 10**6).frames
    first, again = ([each() for each in frames] for _ in range(2))
    assert first == again
    assert frames[0]() == first[0]


def test_overlays_of_a_video_decode_each_frame_once(tmp_path: Path, patched: Patches) -> None:
    numbers = [number % 3 for number in range(40)]
    source = video(stream([PICTURES[each] for each in numbers]), NumberOfFrames=len(numbers))
    (tmp_path / "v.dcm").write_bytes(written(source))
    patched(session, "load_predictor", lambda settings: RedPredictor())
    decoded = patched(dicom_video.Video, "_next")
    assert main(["segment", str(tmp_path / "v.dcm"), "-o", str(tmp_path / "out"), "--output", "overlay"]) == 0
    assert decoded.count == len(numbers)
    made = sorted((tmp_path / "out/v.dcm.frames").iterdir())
    tints = [np.asarray(Image.open(file))[20, 30, 1] > 30 for file in made]  # red has no green without its tint
    assert tints == [MASKS[each][20, 30] for each in numbers]


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_a_video_is_freed_without_a_garbage_collection(taken: int, patched: Patches) -> None:
    opened: list[weakref.ref[Any]] = []
    real = av.open

    def noting(source: Any, **options: Any) -> Any:
        opened.append(weakref.ref(source))
        return real(source, **options)

    body = written(video(stream(PICTURES)))
    patched(av, "open", noting)
    gc.disable()
    try:
        frames = study.read(body, 10**6).frames
        assert [len(each().data) for each in frames[:taken]] == [160 * 128 * 3] * taken
        del frames
        assert [each() for each in opened] == [None]
    finally:
        gc.enable()


def test_a_video_is_not_decoded_beyond_the_pixels_that_are_allowed() -> None:
    with pytest.raises(ServiceError, match="MAX_IMAGE_PIXELS"):
        study.read(written(video(stream(PICTURES))), 160 * 128 - 1)
    large = stream([picture.resize((1280, 960)) for picture in PICTURES])
    with pytest.raises(ServiceError, match=r"holds no video|is damaged"):  # before a frame is made of it
        study.read(written(video(large)), 10**6).frames[0]()


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(("serve", "fewer"), [(processes.fake_server, 50), (processes.server, 1)])
def test_memory_does_not_grow_with_the_length_of_a_video(serve: Callable[[], Any], fewer: int) -> None:
    with serve() as server:
        peaks = []
        for count in (fewer, 250):
            pictures = [PICTURES[number % 3].resize((720, 576)) for number in range(count)]
            body = written(video(stream(pictures), NumberOfFrames=count, Columns=720, Rows=576))
            answer = httpx.post(f"{server.url}/segment", content=body, headers={**DICOM, **NDJSON}, timeout=600)
            statuses = [json.loads(line)["status"] for line in answer.text.splitlines()] if count > 1 else [200]
            assert (answer.status_code, statuses) == (200, [200] * count)
            peaks.append(resident_bytes(server, peak=True))
    print(f"\npeak with {fewer} frames {peaks[0] / 2**20:.0f} MiB, with 250 {peaks[1] / 2**20:.0f} MiB", end="")
    assert peaks[1] <= 1.1 * peaks[0]


async def test_without_pyav_the_answer_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    body = written(video(stream(PICTURES)))
    monkeypatch.setitem(sys.modules, "av", None)
    async with serving() as it:
        answer = await sent(it, body)
    assert answer.status_code == 415
    assert answer.json()["detail"].endswith("pip install -e '.[video]'")
