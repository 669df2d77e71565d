"""``pranet receive``: what peers send becomes Segmentations in the PACS, and nothing is lost on the way."""

import contextlib
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import BasicTextSRStorage, JPEGBaseline8Bit, VideoEndoscopicImageStorage, generate_uid

from service import runtime
from service.commands import receive
from service.commands.main import main
from service.pacs import node
from service.pacs.stow import REASONS
from tests.support.dicom_objects import MASKS, PICTURES, SECRETS, dicom
from tests.support.nodes import free_port, receiving, sent
from tests.support.patching import Patches
from tests.support.predictors import PATIENCE, RedPredictor
from tests.support.processes import PROGRAM
from tests.support.servers.orthanc import INSTALLED, USER, orthanc
from tests.support.servers.stow import Stow, stow
from tests.support.serving import until

SUCCESS, CANNOT_UNDERSTAND = 0x0000, 0xC000


@pytest.fixture
def pacs() -> Iterator[Stow]:
    with stow() as running:
        yield running


def series() -> list[Dataset]:
    """Return the three pictures, as objects of one series."""
    study, uid = generate_uid(), generate_uid()
    return [
        dicom([picture], StudyInstanceUID=study, SeriesInstanceUID=uid, InstanceNumber=number)
        for number, picture in enumerate(PICTURES, 1)
    ]


def sources(segmentation: Dataset) -> list[str]:
    frames = segmentation.PerFrameFunctionalGroupsSequence
    return [each.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID for each in frames]


async def test_a_series_becomes_one_segmentation_in_the_pacs_in_the_order_of_its_numbers(
    pacs: Stow, tmp_path: Path, patched: Patches
) -> None:
    objects = series()
    async with receiving(tmp_path / "spool", pacs.url, patched) as it:
        answers = await sent(it.port, [objects[2], objects[0], objects[1]])
        await until(lambda: bool(pacs.stored) and not it.waiting())
    assert [each.Status for each in answers] == [SUCCESS] * 3
    (stored,) = pacs.stored
    assert sources(stored) == [each.SOPInstanceUID for each in objects]
    assert (stored.pixel_array == np.stack(MASKS)).mean() > 0.99
    assert (stored.StudyInstanceUID, stored.PatientID) == (objects[0].StudyInstanceUID, SECRETS[1])


async def test_other_sizes_and_series_get_segmentations_of_their_own(
    pacs: Stow, tmp_path: Path, patched: Patches
) -> None:
    objects, other = series(), dicom([PICTURES[0].resize((64, 48))])
    other.StudyInstanceUID, other.SeriesInstanceUID = objects[0].StudyInstanceUID, objects[0].SeriesInstanceUID
    several = dicom(PICTURES, JPEGBaseline8Bit)
    assert several.SOPClassUID == VideoEndoscopicImageStorage
    async with receiving(tmp_path / "spool", pacs.url, patched, "--omit-empty") as it:
        await sent(it.port, [*objects, other, several])
        await until(lambda: len(pacs.stored) == 3 and not it.waiting())
    assert sorted(len(sources(each)) for each in pacs.stored) == [1, 2, 2]  # one of three frames is empty


async def test_the_objects_of_one_segmentation_have_a_limit(pacs: Stow, tmp_path: Path, patched: Patches) -> None:
    objects = series()
    size = len(objects[0].PixelData)
    async with receiving(tmp_path / "spool", pacs.url, patched, "--max-archive-bytes", 2 * size + 4000) as it:
        await sent(it.port, objects)
        await until(lambda: len(pacs.stored) == 2)
    assert [len(sources(each)) for each in pacs.stored] == [2, 1]


async def test_what_cannot_be_segmented_is_refused_with_the_reason_and_costs_no_other_object(
    pacs: Stow, tmp_path: Path, patched: Patches
) -> None:
    good, bad = series()[:2]
    del bad.Rows
    async with receiving(tmp_path / "spool", pacs.url, patched) as it:
        answers = await sent(it.port, [bad, good])
        await until(lambda: bool(pacs.stored) and not it.waiting())
    assert [each.Status for each in answers] == [CANNOT_UNDERSTAND, SUCCESS]
    assert "it has no Rows" in answers[0].ErrorComment
    assert sources(pacs.stored[0]) == [good.SOPInstanceUID]


async def test_a_larger_object_than_allowed_is_refused(pacs: Stow, tmp_path: Path, patched: Patches) -> None:
    async with receiving(tmp_path / "spool", pacs.url, patched, "--max-archive-bytes", 10_000) as it:
        (answer,) = await sent(it.port, series()[:1])
        assert it.waiting() == []
    assert answer.Status == CANNOT_UNDERSTAND
    assert "--max-archive-bytes" in answer.ErrorComment


async def test_one_object_with_damaged_pixels_is_kept_aside_and_the_others_are_segmented(
    pacs: Stow, tmp_path: Path, patched: Patches
) -> None:
    study, uid = generate_uid(), generate_uid()
    objects = [
        dicom([picture], JPEGBaseline8Bit, StudyInstanceUID=study, SeriesInstanceUID=uid, InstanceNumber=number)
        for number, picture in enumerate(PICTURES, 1)
    ]
    data = bytearray(objects[1].PixelData)
    data[len(data) // 4 :] = bytes(len(data) - len(data) // 4)
    objects[1].PixelData = bytes(data)
    async with receiving(tmp_path / "spool", pacs.url, patched) as it:
        await sent(it.port, objects)
        reasons = await it.failed()
        await until(lambda: len(pacs.stored) == 2)
        await until(lambda: it.waiting() == [f"{objects[1].SOPInstanceUID}.dcm", "reasons.txt"])
    assert len(reasons) == 1
    assert reasons[0].startswith(f"{objects[1].SOPInstanceUID}.dcm: the DICOM frame is damaged")
    assert [sources(each) for each in pacs.stored] == [[objects[0].SOPInstanceUID], [objects[2].SOPInstanceUID]]


async def test_prometheus_sees_what_is_received_refused_stored_and_left(tmp_path: Path, patched: Patches) -> None:
    port, good = free_port(), series()
    bad = series()[0]
    del bad.Rows

    async def seen() -> set[str]:
        async with httpx.AsyncClient(trust_env=False) as client:
            lines = (await client.get(f"http://127.0.0.1:{port}/metrics")).text.splitlines()
        return {line.removeprefix("pranet_dicom_") for line in lines if line.startswith("pranet_dicom_")}

    with stow(409, 0x0110) as pacs:
        async with receiving(tmp_path / "spool", pacs.url, patched, "--metrics-port", port) as it:
            assert 'segmentations_total{outcome="refused"} 0.0' in await seen()
            await sent(it.port, [*good, bad])
            await it.failed()
            assert await seen() == {
                'objects_total{outcome="received"} 3.0',
                'objects_total{outcome="refused"} 1.0',
                'segmentations_total{outcome="stored"} 0.0',
                'segmentations_total{outcome="refused"} 1.0',
                'spooled_objects{place="received"} 0.0',
                'spooled_objects{place="segmented"} 0.0',
                'spooled_objects{place="failed"} 1.0',
            }
            pacs.status, pacs.reason = 200, None
            await sent(it.port, good)
            await until(lambda: bool(pacs.stored) and len(it.waiting()) == 2)
            assert 'segmentations_total{outcome="stored"} 1.0' in await seen()


async def test_a_report_gets_no_presentation_context(pacs: Stow, tmp_path: Path, patched: Patches) -> None:
    report = dicom([PICTURES[0]], SOPClassUID=BasicTextSRStorage)
    async with receiving(tmp_path / "spool", pacs.url, patched) as it:
        assert await sent(it.port, [report]) == []


@pytest.mark.parametrize(("called", "calling"), [("OTHER", "ENDO1"), ("PRANET", "ENDO3")])
async def test_other_titles_than_the_agreed_ones_are_rejected(
    pacs: Stow, tmp_path: Path, patched: Patches, called: str, calling: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with receiving(tmp_path / "spool", pacs.url, patched, "--caller", "ENDO1", "--caller", "ENDO2") as it:
        assert await sent(it.port, series(), called=called, calling=calling) == []
        assert len(await sent(it.port, series(), calling="ENDO2")) == 3
    assert f"rejected an association of {calling} at 127.0.0.1, which called {called}" in capsys.readouterr().err


async def test_segmentations_wait_for_a_pacs_that_is_away_and_for_one_that_has_no_room(
    tmp_path: Path, patched: Patches, capsys: pytest.CaptureFixture[str]
) -> None:
    patched(node, "LONGEST_WAIT", 0.1)
    patched(node, "FIRST_WAIT", 0.05)
    with stow(409, 0xA700) as pacs:
        async with receiving(tmp_path / "spool", pacs.url, patched) as it:
            await sent(it.port, series())
            await until(lambda: len(pacs.headers) > 2)
            pacs.status, pacs.reason = 503, None
            tried = len(pacs.headers)
            await until(lambda: len(pacs.headers) > tried + 2)
            assert it.waiting() == ["1.dcm"]
            pacs.status = 200
            await until(lambda: bool(pacs.stored) and not it.waiting())
    told = capsys.readouterr().err
    assert "does not store Segmentations: it is out of resources; next attempt in" in told
    assert "does not store Segmentations: HTTP 503; next attempt in" in told


async def test_a_segmentation_that_the_pacs_refuses_is_kept_beside_the_reason(tmp_path: Path, patched: Patches) -> None:
    with stow(409, 0x0122) as pacs:
        async with receiving(tmp_path / "spool", pacs.url, patched) as it:
            await sent(it.port, series())
            assert await it.failed() == [f"1.dcm: HTTP 409, {REASONS[0x0122]}"]
            assert it.waiting() == ["1.dcm", "reasons.txt"]
            pacs.status = 200
            pacs.reason = None
            await sent(it.port, series())
            await until(lambda: bool(pacs.stored))


async def test_a_device_that_stops_answering_ends_the_command_and_the_next_start_segments_what_is_left(
    pacs: Stow, tmp_path: Path, patched: Patches
) -> None:
    patched(runtime, "_hang_seconds", lambda settings: 0.2)
    let = threading.Event()
    async with receiving(tmp_path / "spool", pacs.url, patched, predictor=RedPredictor(lambda _: let.wait())) as it:
        await sent(it.port, series())
        assert await it.running == receive.INFERENCE_DEAD
        assert len(it.waiting()) == 3
    let.set()
    async with receiving(tmp_path / "spool", pacs.url, patched) as it:
        await until(lambda: bool(pacs.stored) and not it.waiting())
    assert len(sources(pacs.stored[0])) == 3


@pytest.mark.parametrize(
    ("token", "header"), [("abc.DEF-1", "Bearer abc.DEF-1"), ("pranet:secret", "Basic cHJhbmV0OnNlY3JldA==")]
)
async def test_the_pacs_gets_a_bearer_token_or_a_password(
    pacs: Stow, tmp_path: Path, patched: Patches, token: str, header: str
) -> None:
    (tmp_path / "token").write_text(f"{token}\n")
    async with receiving(tmp_path / "spool", pacs.url, patched, "--token-file", tmp_path / "token") as it:
        await sent(it.port, series())
        await until(lambda: bool(pacs.headers))
    assert pacs.headers[0]["authorization"] == header
    assert pacs.headers[0]["content-type"].startswith('multipart/related; type="application/dicom"; boundary=')


async def test_no_log_line_names_a_patient(
    pacs: Stow, tmp_path: Path, patched: Patches, capsys: pytest.CaptureFixture[str]
) -> None:
    async with receiving(tmp_path / "spool", pacs.url, patched, "--log-level", "debug") as it:
        bad = series()[0]
        del bad.Rows
        await sent(it.port, [*series(), bad])
        await until(lambda: bool(pacs.stored) and not it.waiting())
    told = capsys.readouterr().err
    assert "the PACS stored a Segmentation" in told
    assert not any(secret in told for secret in SECRETS)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--stow-url", "https://me:secret@pacs/dicom-web"), "--token-file"),
        (("--stow-url", "pacs/dicom-web"), "https://HOST/dicom-web"),
        (("--ae-title", "LONGER-THAN-SIXTEEN"), "1 to 16 ASCII characters"),
        (("--caller", " "), "1 to 16 ASCII characters"),
        (("--token-file", "nowhere"), "--token-file nowhere"),
    ],
)
def test_what_cannot_be_used_is_said_at_the_start(
    flags: tuple[str, ...], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"--spool": str(tmp_path / "spool"), "--stow-url": "http://127.0.0.1:1/dicom-web"} | dict([flags])
    assert main(["receive", *(word for pair in given.items() for word in pair)]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="needs: apt-get install dcmtk orthanc orthanc-dicomweb")
def test_after_a_kill_a_real_pacs_gets_each_segmentation_once(tmp_path: Path) -> None:
    """With the bundled weights, dcmtk's ``dcmsend`` in front, and Orthanc behind, which comes later."""
    objects, port, web = series(), free_port(), free_port()
    spool, files = tmp_path / "spool", [tmp_path / f"{number}.dcm" for number in range(len(PICTURES))]
    for file, each in zip(files, objects, strict=True):
        each.save_as(file, enforce_file_format=True)
    (tmp_path / "token").write_text(":".join(USER))
    flags = ("--spool", spool, "--token-file", tmp_path / "token", "--dicom-port", port)
    command = [*PROGRAM, "receive", *flags, "--stow-url", f"http://127.0.0.1:{web}/dicom-web"]
    with begun(command) as process:
        subprocess.run(["dcmsend", "-aec", "PRANET", "127.0.0.1", str(port), *files], check=True)
        process.kill()
    with begun(command) as process, orthanc(tmp_path / "pacs", web) as client:
        (stored,) = seen(lambda: client.get("/instances", params={"Modality": "SEG"}).json() or None)
        seen(lambda: not list(spool.rglob("*.dcm")) or None)
        accept = 'multipart/related; type="application/dicom"'
        answer = client.get(stored["00081190"]["Value"][0], headers={"accept": accept})
        process.terminate()
        assert process.wait(PATIENCE) == 0
    (tmp_path / "seg.dcm").write_bytes(answer.content.partition(b"\r\n\r\n")[2])
    assert sources(dcmread(tmp_path / "seg.dcm")) == [each.SOPInstanceUID for each in objects]


@contextlib.contextmanager
def begun(command: list[object]) -> Iterator["subprocess.Popen[str]"]:
    """Run ``pranet receive`` inside the block, which begins when it is ready."""
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert any("ready: PRANET" in line for line in process.stderr)
            yield process
        finally:
            process.kill()


def seen(look: Callable[[], Any]) -> Any:
    """Return what there is to see, once it is something else than None."""
    end = time.monotonic() + 2 * PATIENCE
    while (found := look()) is None:
        assert time.monotonic() < end
        time.sleep(0.1)
    return found
