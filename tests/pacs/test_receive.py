"""``pranet receive``: what peers send becomes Segmentations in the PACS."""

import os
import signal
from pathlib import Path

import httpx
import numpy as np
import pytest
from pydicom.uid import JPEGBaseline8Bit, VideoEndoscopicImageStorage

from service.commands.main import main
from tests.support import processes
from tests.support.dicom_objects import MASKS, PICTURES, SECRETS, dicom
from tests.support.patching import Patches
from tests.support.servers.dicom_node import receiving, sent, series, sources
from tests.support.servers.stow import Stow, stow
from tests.support.serving import PATIENCE, free_port, until

SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000


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
                'spooled_objects{place="receiving"} 0.0',
                'spooled_objects{place="received"} 0.0',
                'spooled_objects{place="segmented"} 0.0',
                'spooled_objects{place="failed"} 1.0',
            }
            pacs.status, pacs.reason = 200, None
            await sent(it.port, good)
            await until(lambda: bool(pacs.stored) and len(it.waiting()) == 2)
            assert 'segmentations_total{outcome="stored"} 1.0' in await seen()


@pytest.mark.parametrize(
    ("token", "header"),
    [
        ("abc.DEF-1", "Bearer abc.DEF-1"),
        ("pranet:secret", "Basic cHJhbmV0OnNlY3JldA=="),
        ("test:123£", "Basic dGVzdDoxMjPCow=="),  # the example of RFC 7617, section 2.1
    ],
)
async def test_the_pacs_gets_a_bearer_token_or_a_password(
    pacs: Stow, tmp_path: Path, patched: Patches, token: str, header: str
) -> None:
    (tmp_path / "token").write_text(f"{token}\n", encoding="utf-8")
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
        (("--ae-title", "POLYPS\\ONE"), "none of them \\"),
        (("--caller", "ENDO\n1"), "1 to 16 ASCII characters"),
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
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_start_at_once_that_waits_for_a_file(number: signal.Signals, tmp_path: Path) -> None:
    command = ("receive", "--spool", tmp_path / "spool", "--stow-url", "http://127.0.0.1:1/dicom-web")
    with processes.starting(weights=tmp_path / "weights", command=command) as process:
        process.send_signal(number)
        assert process.wait(PATIENCE) in (-number, 128 + number)


async def test_a_second_signal_ends_the_command_at_once(pacs: Stow, tmp_path: Path, patched: Patches) -> None:
    ends: list[int] = []
    patched("service.signals.os", "_exit", ends.append)
    async with receiving(tmp_path / "spool", pacs.url, patched) as it:
        await sent(it.port, series())
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        assert await it.running == 0
    assert ends == [128 + signal.SIGTERM]
