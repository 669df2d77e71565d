"""What a node refuses, and what its peer is told."""

import asyncio
import contextlib
import errno
import ssl
import threading
from pathlib import Path

import pytest
from pydicom.uid import BasicTextSRStorage

from service.pacs.spool import Spool
from tests.support.certificates import Authority
from tests.support.dicom_objects import HAS_DICOM, MASKS, NO_DICOM, PICTURES, dicom
from tests.support.patching import Patches
from tests.support.servers.stow import Stow
from tests.support.serving import PATIENCE, until

if not HAS_DICOM:
    pytest.skip(NO_DICOM, allow_module_level=True)

from service.pacs import receiver
from tests.support.servers.dicom_node import receiving, sent, series, sources

SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000


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


async def test_another_object_of_the_same_instance_uid_is_refused_and_a_copy_is_not(
    pacs: Stow, tmp_path: Path, patched: Patches
) -> None:
    first, other = series()[:2]
    other.SOPInstanceUID = first.SOPInstanceUID
    async with receiving(tmp_path / "spool", pacs.url, patched) as it:
        answers = await sent(it.port, [first, other, first])
        await until(lambda: bool(pacs.stored) and not it.waiting())
    assert [each.Status for each in answers] == [SUCCESS, CANNOT_UNDERSTAND, SUCCESS]
    assert answers[1].ErrorComment == "another object has this SOP Instance UID; give each its own"
    assert (pacs.stored[0].pixel_array == MASKS[0]).mean() > 0.99


async def test_a_larger_object_than_allowed_is_refused(pacs: Stow, tmp_path: Path, patched: Patches) -> None:
    async with receiving(tmp_path / "spool", pacs.url, patched, "--max-archive-bytes", 10_000) as it:
        (answer,) = await sent(it.port, series()[:1])
        assert it.waiting() == []
    assert answer.Status == CANNOT_UNDERSTAND
    assert "--max-archive-bytes" in answer.ErrorComment


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


async def test_what_cannot_be_kept_is_reported_to_its_peer(
    pacs: Stow, tmp_path: Path, patched: Patches, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(spool: Spool) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    patched(Spool, "begin", full)
    async with receiving(tmp_path / "spool", pacs.url, patched) as it:
        (answer,) = await sent(it.port, series()[:1])
        assert it.waiting() == []
    assert answer.Status == OUT_OF_RESOURCES
    assert "No space left on device" in answer.ErrorComment
    assert "cannot be kept: No space left on device" in capsys.readouterr().err


async def test_an_object_of_which_no_segmentation_can_be_made_is_refused_at_once_by_what_is_missing(
    pacs: Stow, tmp_path: Path, patched: Patches, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = series()[0]
    del bad.StudyInstanceUID
    async with receiving(tmp_path / "spool", pacs.url, patched) as it:
        (answer,) = await sent(it.port, [bad])
        assert it.waiting() == []
    assert answer.Status == CANNOT_UNDERSTAND
    assert answer.ErrorComment.startswith("the DICOM object has no valid StudyInstanceUID")
    told = capsys.readouterr().err
    assert "no valid StudyInstanceUID, which a Segmentation needs; correct it, or make masks instead" in told


async def closed(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""


async def test_a_peer_that_vanishes_inside_a_message_is_given_up(pacs: Stow, tmp_path: Path, patched: Patches) -> None:
    patched(receiver, "NETWORK_SECONDS", 0.5)
    async with receiving(tmp_path / "spool", pacs.url, patched) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(b"\x01\x00\x00\x00\x01\x00half a request for an association")
        await closed(reader)
        writer.close()


async def test_a_silent_peer_before_its_handshake_keeps_no_other_out(
    pacs: Stow, tmp_path: Path, patched: Patches
) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("127.0.0.1")
    async with receiving(tmp_path / "spool", pacs.url, patched, "--tls-cert", cert, "--tls-key", key) as it:
        _, silent = await asyncio.open_connection("127.0.0.1", it.port)
        context = ssl.create_default_context(cafile=authority.pem)
        async with asyncio.timeout(PATIENCE):
            _, spoken = await asyncio.open_connection("127.0.0.1", it.port, ssl=context)
        for each in (silent, spoken):
            each.close()
        # The end of the port aborts who is connected, which pynetdicom cannot do before an association is asked for.
        await until(lambda: not any("run_reactor" in thread.name for thread in threading.enumerate()))
