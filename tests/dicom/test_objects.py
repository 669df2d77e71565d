"""DICOM objects: segmented as their pictures are, answered with masks or a Segmentation, and never told of."""

import asyncio
import base64
import importlib.util
import io
import json
import logging
import struct
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames, get_frame
from pydicom.uid import (
    MPEG4HP41,
    UID,
    DeflatedExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from model.cores import usable_cores
from service.batching.queue import Priority
from service.dicom.jpeg_2000 import START as J2K_START
from service.frames import segmenter
from service.frames.frame import Frame, Options
from service.frames.side_outputs import SideOutputs
from tests.support.dicom_objects import (
    DICOM,
    LOSSLESS,
    MASKS,
    PICTURES,
    SECRETS,
    SYNTAXES,
    dicom,
    needs_dicom,
    segmentation,
    sent,
    valid,
    written,
)
from tests.support.patching import Patches
from tests.support.pictures import SAMPLES, dice, encoded, mask_of, red_box, repeat_last_scan
from tests.support.predictors import WhiteMaps
from tests.support.processes import Server
from tests.support.servers.otlp import receiving
from tests.support.serving import PATIENCE, serving, until

pytestmark = needs_dicom


@pytest.mark.slow
def test_five_transfer_syntaxes_segment_as_their_png_does(server: Server) -> None:
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        for number, syntax in enumerate(SYNTAXES):
            picture = Image.open(SAMPLES[number % len(SAMPLES)]).convert("RGB")
            of_png = client.post("/segment", content=encoded(picture)).content
            answer = client.post("/segment", content=written(dicom([picture], syntax)), headers=DICOM)
            assert answer.status_code == 200, answer.text
            found = dice(mask_of(answer.content), mask_of(of_png))
            print(syntax.name, found)
            assert found >= (0.99 if syntax in LOSSLESS else 0.97)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
async def test_every_frame_of_an_object_is_answered(syntax: UID) -> None:
    async with serving() as it:
        answer = await sent(it, dicom(PICTURES, syntax))
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [(line["name"], line["status"]) for line in lines] == [("1", 200), ("2", 200), ("3", 200)]
    for line, mask in zip(lines, MASKS, strict=True):
        assert dice(mask_of(base64.b64decode(line["png"])), mask) > 0.95


async def test_grey_of_more_bits_and_inverted_grey_mean_the_same_picture() -> None:
    grey = np.asarray(PICTURES[0])[..., 0]
    deep = dicom(PICTURES[:1], SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2", BitsAllocated=16)
    deep.BitsStored, deep.HighBit, deep.PixelData = 12, 11, (grey.astype(np.uint16) * 16).tobytes()
    deepest = dicom(PICTURES[:1], SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2", BitsAllocated=32)
    deepest.BitsStored, deepest.HighBit, deepest.PixelData = 32, 31, (grey.astype(np.uint32) << 24).tobytes()
    inverted = dicom(PICTURES[:1], SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME1")
    inverted.PixelData = (255 - grey).tobytes()
    for made in (deep, deepest, inverted):
        made["PixelData"].VR = "OW" if made.BitsAllocated > 8 else "OB"
        del made.PlanarConfiguration
    async with serving() as it:
        for made in (deep, deepest, inverted):
            assert dice(mask_of((await sent(it, made)).content), MASKS[0]) > 0.95


@pytest.mark.parametrize("omit", [False, True])
async def test_a_segmentation_refers_to_its_source_and_holds_its_masks(omit: bool, tmp_path: Path) -> None:
    source = dicom(PICTURES, JPEG2000Lossless)
    async with serving() as it:
        answer = await sent(it, source, f"?omit_empty={omit}", accept="application/dicom")
    assert (answer.status_code, answer.headers["x-model"]) == (200, "red-00000000"), answer.text
    made = segmentation(answer.content)
    assert made.NumberOfFrames == (2 if omit else 3)
    assert made.get_segment_description(1).segmented_property_type.value == "68496003"
    assert (made.StudyInstanceUID, str(made.PatientName)) == (source.StudyInstanceUID, SECRETS[0])
    pixels = made.get_pixels_by_source_frame(source.SOPInstanceUID, [1, 2, 3], assert_missing_frames_are_empty=True)
    for found, mask in zip(pixels[..., 0] > 0, MASKS, strict=True):
        assert dice(found, mask) > 0.95
    (tmp_path / "seg.dcm").write_bytes(answer.content)
    valid(tmp_path / "seg.dcm")


async def test_a_segmentation_of_a_single_image(tmp_path: Path) -> None:
    source = dicom(PICTURES[:1])
    async with serving() as it:
        answer = await sent(it, source, accept="application/dicom")
    made = segmentation(answer.content)
    found = made.get_pixels_by_source_instance([source.SOPInstanceUID])[0, ..., 0] > 0
    assert dice(found, MASKS[0]) > 0.95
    (tmp_path / "seg.dcm").write_bytes(answer.content)
    valid(tmp_path / "seg.dcm")


def _without(name: str) -> bytes:
    made = dicom(PICTURES[:1])
    delattr(made, name)
    return written(made)


def _of_other_size() -> bytes:
    return written(dicom(PICTURES[:1], JPEGBaseline8Bit, Rows=40))


def _of_codestream(jpeg: bytes) -> bytes:
    made = dicom(PICTURES[:1], JPEGBaseline8Bit)
    made.PixelData = encapsulate([jpeg])
    return written(made)


def _of_small_tiles() -> bytes:
    made = dicom([Image.new("RGB", (255, 255))], JPEG2000Lossless)
    frame = bytearray(get_frame(made.PixelData, 0, number_of_frames=1))
    struct.pack_into(">2I", frame, frame.find(J2K_START) + 24, 1, 1)  # XTsiz, YTsiz (ITU-T T.800, A.5.1)
    made.PixelData = encapsulate([bytes(frame)])
    return written(made)


def _as_video() -> bytes:
    made = dicom(PICTURES[:1], JPEGBaseline8Bit)
    made.file_meta.TransferSyntaxUID = MPEG4HP41
    return written(made)


MALFORMED: dict[str, tuple[Callable[[], bytes], int, str]] = {
    "empty": (lambda: b"", 400, "empty"),
    "not DICOM": (lambda: b"no object" * 50, 415, "not a DICOM object; send one, or send a picture under its own type"),
    "a picture": (lambda: encoded(PICTURES[0], "JPEG"), 415, "not a DICOM object; send one, or send a picture under"),
    "half": (lambda: written(dicom(PICTURES[:1]))[:5000], 422, "bytes of pixels"),
    "no pixels": (lambda: _without("PixelData"), 422, "PixelData"),
    "no rows": (lambda: _without("Rows"), 422, "Rows"),
    "too few pixels": (lambda: written(dicom(PICTURES[:1], NumberOfFrames=9)), 422, "bytes of pixels"),
    "no columns": (lambda: written(dicom(PICTURES[:1], Columns=0)), 422, "no columns"),
    "another size": (_of_other_size, 422, "size"),
    "progressive JPEG": (
        lambda: _of_codestream(encoded(PICTURES[0], "JPEG", progressive=True)),
        422,
        "not encoded as JPEG Baseline (Process 1)",
    ),
    "another coding": (lambda: _of_codestream(encoded(PICTURES[0], "JPEG2000")), 422, "not encoded as JPEG Baseline"),
    "many scans": (lambda: _of_codestream(repeat_last_scan(encoded(PICTURES[0], "JPEG"), 32)), 415, "32 scans"),
    "many tiles": (_of_small_tiles, 415, "8192 tiles"),
    "too large": (lambda: written(dicom(PICTURES[:1], Rows=60000, Columns=60000)), 413, "MAX_IMAGE_PIXELS"),
    "no video": (_as_video, 422, "holds no video that can be read"),
}


async def test_what_cannot_be_segmented_is_refused_with_its_reason() -> None:
    async with serving() as it:
        for name, (made, status, reason) in MALFORMED.items():
            answer = await sent(it, made())
            assert (name, answer.status_code) == (name, status), answer.text
            assert reason in answer.json()["detail"], name
        assert it.service.segmenter.in_flight == 0
        assert it.service.archives.working == 0
        assert (await sent(it, dicom(PICTURES[:1]))).status_code == 200


async def test_a_single_frame_has_the_maps_of_its_picture_and_several_have_none(patched: Patches) -> None:
    patched(SideOutputs, "_network", lambda *_: WhiteMaps)
    async with serving() as it:
        one = await sent(it, dicom(PICTURES[:1]), "?output=maps")
        several = await sent(it, dicom(PICTURES), "?output=maps")
        assert it.service.archives.working == 0
    width, height = PICTURES[0].size
    assert (one.status_code, one.headers["content-type"]) == (200, "image/png"), one.text
    assert Image.open(io.BytesIO(one.content)).size == (4 * width, height)
    assert (several.status_code, "an object with one frame" in several.json()["detail"]) == (422, True), several.text


async def test_what_is_not_made_of_an_object_is_refused() -> None:
    async with serving() as it:
        for query, headers in (
            ("?output=maps", {"accept": "application/dicom"}),
            ("?output=overlay", {"accept": "application/dicom"}),
            ("?omit_empty=1", {}),
        ):
            assert (await sent(it, dicom(PICTURES[:1]), query, **headers)).status_code == 422, query
        refused = await sent(it, encoded(PICTURES[0]), "?omit_empty=1", **{"content-type": "image/png"})
        assert (refused.status_code, "needs a DICOM object" in refused.json()["detail"]) == (422, True)


@pytest.mark.parametrize("accept", [b"", b"Accept: */*\r\n"])
async def test_an_option_that_no_number_of_frames_gives_a_meaning_is_refused_before_the_object_is_sent(
    accept: bytes,
) -> None:
    head = b"POST /segment?omit_empty=1 HTTP/1.1\r\nHost: pranet\r\nContent-Type: application/dicom\r\n"
    async with serving() as it, asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        try:
            writer.write(head + accept + b"Content-Length: 1000000\r\n\r\n")
            assert b" 422 " in await reader.readline()
            assert b"add Accept: application/dicom" in await reader.readuntil(b"}")
        finally:
            writer.close()
            await writer.wait_closed()


async def test_an_object_of_unknown_length_needs_a_thread_of_archives_only_if_it_has_several_frames(
    patched: Patches,
) -> None:
    async def piecewise(frames: int) -> AsyncIterator[bytes]:
        yield written(dicom(PICTURES[:frames]))

    permit = threading.Event()

    def slowly() -> bytes:
        permit.wait(PATIENCE)
        return encoded(PICTURES[0])

    patched(segmenter, "STUCK_SECONDS", 0.0)
    async with serving() as it:
        stuck = [Frame(source=slowly, options=Options(priority=Priority.ARCHIVE)) for _ in range(usable_cores())]
        hanging = [asyncio.create_task(it.service.segmenter.segment(frame)) for frame in stuck[: len(stuck) // 2 or 1]]
        try:
            await until(lambda: it.metric("pranet_stuck_threads", {"priority": "archive"}) == len(hanging))
            one, two = [await it.rest.post("/segment", content=piecewise(n), headers=DICOM) for n in (1, 2)]
        finally:
            permit.set()
        await asyncio.gather(*hanging)
    assert (one.status_code, two.status_code) == (200, 503)


async def test_a_damaged_frame_harms_only_itself_but_makes_no_segmentation() -> None:
    made = dicom(PICTURES, JPEGBaseline8Bit)
    at = made.PixelData.rindex(b"\xff\xd8")
    made.PixelData = made.PixelData[: at + 2] + bytes(20) + made.PixelData[at + 22 :]
    async with serving() as it:
        lines = [json.loads(line) for line in (await sent(it, made)).text.splitlines()]
        refused = await sent(it, made, accept="application/dicom")
        assert [line["status"] for line in lines] == [200, 200, 422]
        assert (refused.status_code, refused.json()["detail"][:8]) == (422, "frame 3:")
        assert it.metric("pranet_rejected_total", {"reason": "undecodable-image"}) == 2  # a line, and an answer


async def test_a_hundred_frames_pass_without_being_held_decoded() -> None:
    body = written(dicom([red_box(640, 480, (10, 10, 300, 200))] * 100, RLELossless))
    async with serving(max_batch_size=2) as it:
        tracemalloc.start()
        try:
            answer = await sent(it, body)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    print(f"peak {peak / 2**20:.0f} MiB")
    assert answer.text.count('"status": 200') == 100
    assert peak < 100 * 640 * 480 * 3 / 3


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
async def test_nothing_of_a_patient_is_logged_traced_or_counted(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    made = dicom(PICTURES)
    unread = dicom(PICTURES, PhotometricInterpretation="Doe^Jane")
    secrets = (*SECRETS, "A-48213", made.SOPInstanceUID, made.StudyInstanceUID, made.SeriesInstanceUID)
    with receiving() as (receiver, endpoint):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        async with serving(log_level="debug") as it:
            odd = written(made).replace(b"20260102", b"Doe^Jane")  # its study date
            bodies = [written(made), odd, written(made)[:3000], written(unread), _of_other_size(), _as_video()]
            for body in bodies:
                for accept in ("application/json", "application/dicom"):
                    answer = await sent(it, body, accept=accept)
                    if answer.headers["content-type"] != "application/dicom":
                        assert not [secret for secret in secrets if secret in answer.text]
            metrics = (await it.rest.get("/metrics")).text
    assert [span.name for span in receiver.spans].count("POST /segment") == 2 * len(bodies)
    told = caplog.text + "".join(capfd.readouterr()) + metrics + "".join(map(str, receiver.spans))
    assert not [secret for secret in secrets if secret in told]


async def test_without_its_packages_the_answer_says_what_to_install(patched: Patches) -> None:
    body = written(dicom(PICTURES[:1]))
    async with serving() as it:
        patched(importlib.util, "find_spec", lambda name: None)
        answer = await sent(it, body)
    assert answer.status_code == 415
    assert ".venv/bin/python -m pip install -e '.[dicom]'" in answer.json()["detail"]


async def test_a_deflated_object_is_refused_before_it_is_inflated(patched: Patches) -> None:
    made = dicom(PICTURES[:1])
    made.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    inflate = patched("zlib", "decompress")
    async with serving() as it:
        answer = await sent(it, made)
    assert inflate.count == 0
    assert dcmread(io.BytesIO(written(made))).Rows == made.Rows
    assert inflate.count == 1
    assert answer.status_code == 415
    assert "Deflated" in answer.json()["detail"]


@pytest.mark.parametrize(("uid", "told"), [("1.2.840.10008.1.2.4.999",) * 2, ("1.2.3.4.5.6.19800101.77", "unknown")])
async def test_a_transfer_syntax_newer_than_its_packages_is_told_by_its_number(uid: str, told: str) -> None:
    made = dicom(PICTURES[:1], JPEGBaseline8Bit)
    made.file_meta.TransferSyntaxUID = HTJ2KLossless
    async with serving() as it:
        answer = await sent(it, written(made).replace(HTJ2KLossless.encode(), uid.encode()))
    assert answer.status_code == 415
    assert f"transfer syntax {told} is" in answer.json()["detail"]


async def test_run_lengths_that_could_unpack_to_gigabytes_are_refused(patched: Patches) -> None:
    patched("service.dicom.study", "MAX_RLE_BYTES", 100)
    async with serving() as it:
        answer = await sent(it, dicom(PICTURES[:1], RLELossless))
    assert answer.status_code == 413


@pytest.mark.parametrize("syntax", [RLELossless, JPEGBaseline8Bit], ids=lambda syntax: syntax.name)
async def test_frames_without_a_table_are_found_once_for_all(syntax: UID, patched: Patches) -> None:
    source = dicom(PICTURES, syntax)
    frames = list(generate_frames(source.PixelData, number_of_frames=len(PICTURES)))
    source.PixelData = encapsulate(frames, has_bot=False)
    looked = patched("service.dicom.study", "parse_fragments"), patched("pydicom.encaps", "parse_fragments")
    async with serving() as it:
        lines = [json.loads(line) for line in (await sent(it, source)).text.splitlines()]
    assert [calls.count for calls in looked] == [1, 0]
    for line, mask in zip(lines, MASKS, strict=True):
        assert dice(mask_of(base64.b64decode(line["png"])), mask) > 0.95
    assert list(generate_frames(source.PixelData, number_of_frames=len(PICTURES))) == frames  # as pydicom looks
