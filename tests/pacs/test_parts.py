"""What has arrived of an object takes room only as long as the rest may come, also on a full disk."""

import asyncio
import contextlib
import errno
import shutil
import socket
import threading
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import httpx
import pytest
from prometheus_client import CollectorRegistry
from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AddressInformation, AssociationSocket

from service.errors import TooManyBytes
from service.pacs.spool import Spool
from tests.support.dicom_objects import HAS_DICOM, NO_DICOM
from tests.support.patching import FailsOnce, Patches
from tests.support.servers.stow import Stow
from tests.support.serving import free_port, until

if not HAS_DICOM:
    pytest.skip(NO_DICOM, allow_module_level=True)

from service.commands import receive
from service.pacs import parts
from service.pacs.metrics import NodeMetrics
from service.pacs.parts import Part, Parts
from service.pacs.receiver import Receiver
from tests.support.servers.dicom_node import TITLE, Node, receiving, sent, series, sources

SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000
FULL = OSError(errno.ENOSPC, "No space left on device")


def in_parts(node: Node) -> list[Path]:
    return list((node.spool / "parts").iterdir())


def disk(patched: Patches, *, full_for: int) -> None:
    """Let the disk be full while the object of this number, from 0, arrives: after its beginning was written."""
    create, made = parts.create, []

    def created(path: Path) -> BinaryIO:
        made.append(path)
        file = create(path)
        if len(made) - 1 == full_for:
            file.write(b"begun")
            file.close()
            return open("/dev/full", "wb")
        return file

    patched(parts, "create", created)


@contextlib.asynccontextmanager
async def associated(port: int, of: Dataset) -> AsyncIterator[Association]:
    entity = AE("ENDO")
    entity.add_requested_context(of.SOPClassUID, of.file_meta.TransferSyntaxUID)
    association = await asyncio.to_thread(entity.associate, "127.0.0.1", port, ae_title=TITLE)
    assert association.is_established
    try:
        yield association
    finally:
        await asyncio.to_thread(association.abort)


def pieces(of: Dataset, context: int = 1) -> list[P_DATA]:
    """Return the messages in which an object is sent, in a presentation context, which is 1 if it is the only one."""
    request = C_STORE()
    request.MessageID, request.Priority = 1, 0
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = of.SOPClassUID, of.SOPInstanceUID
    syntax = of.file_meta.TransferSyntaxUID
    request.DataSet = BytesIO(encode(of, syntax.is_implicit_VR, syntax.is_little_endian) or b"")
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    return list(message.encode_msg(context, 4096))


async def test_an_object_for_which_the_disk_has_no_room_is_refused_and_those_around_it_are_kept(
    pacs: Stow, tmp_path: Path, patched: Patches, capsys: pytest.CaptureFixture[str]
) -> None:
    disk(patched, full_for=1)
    first, refused, last = series()
    port = free_port()
    async with receiving(tmp_path / "spool", pacs.url, patched, "--metrics-port", port) as it:
        answers = await sent(it.port, [first, refused, last])
        assert in_parts(it) == []
        async with httpx.AsyncClient(trust_env=False) as client:
            metrics = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
        assert 'pranet_dicom_objects_total{outcome="refused"} 1.0' in metrics
        await until(lambda: bool(pacs.stored) and not it.waiting())
    assert [each.Status for each in answers] == [SUCCESS, OUT_OF_RESOURCES, SUCCESS]
    assert answers[1].ErrorComment == "the spool cannot be written: No space left on device"
    assert sources(pacs.stored[0]) == [first.SOPInstanceUID, last.SOPInstanceUID]
    told = capsys.readouterr().err
    assert told.count("an object of ENDO at 127.0.0.1 cannot be kept: No space left on device") == 1
    assert "Traceback" not in told


async def test_an_object_whose_file_cannot_be_made_is_refused(pacs: Stow, tmp_path: Path, patched: Patches) -> None:
    async with receiving(tmp_path / "spool", pacs.url, patched) as it:
        shutil.rmtree(it.spool / "parts")
        (answer,) = await sent(it.port, series()[:1])
        (it.spool / "parts").mkdir()
        assert [each.Status for each in await sent(it.port, series())] == [SUCCESS] * 3
    assert answer.Status == OUT_OF_RESOURCES


async def test_what_has_arrived_of_an_object_goes_with_its_association_and_costs_no_other_one(
    pacs: Stow, tmp_path: Path, patched: Patches
) -> None:
    first, second, _ = series()
    async with receiving(tmp_path / "spool", pacs.url, patched) as it:
        async with associated(it.port, second) as whole, associated(it.port, first) as broken:
            *most, last = pieces(second)
            for association, piece in [*((whole, each) for each in most), (broken, pieces(first)[0])]:
                association.dul.send_pdu(piece)
            await until(lambda: len(in_parts(it)) == 2)
            await asyncio.to_thread(broken.abort)
            await until(lambda: len(in_parts(it)) == 1)
            whole.dul.send_pdu(last)
            await until(lambda: bool(list(it.spool.glob("receiving/*/*.dcm"))))
        await until(lambda: bool(pacs.stored) and not it.waiting())
    assert sources(pacs.stored[0]) == [second.SOPInstanceUID]


async def test_what_has_arrived_goes_also_if_a_message_breaks_the_rules_and_what_came_before_is_segmented(
    pacs: Stow, tmp_path: Path, patched: Patches, capsys: pytest.CaptureFixture[str]
) -> None:
    patched(receive, "SWEEP_SECONDS", 0.05)
    patched(threading, "excepthook", receive._failed_thread)  # as the command does
    good, bad, _ = series()
    async with receiving(tmp_path / "spool", pacs.url, patched) as it, associated(it.port, good) as association:
        assert (await asyncio.to_thread(association.send_c_store, good)).Status == SUCCESS
        association.dul.send_pdu(pieces(bad, context=99)[0])  # which was not agreed on
        await until(lambda: bool(pacs.stored) and not it.waiting())
    told = capsys.readouterr().err
    assert "an association of ENDO at 127.0.0.1 broke off inside a message" in told
    assert "a thread of the DICOM port ended: 99" in told
    assert "Traceback" not in told


async def test_an_error_of_the_disk_at_the_end_of_an_association_is_told_in_one_line(
    pacs: Stow, tmp_path: Path, patched: Patches, capsys: pytest.CaptureFixture[str]
) -> None:
    patched(receive, "SWEEP_SECONDS", 0.05)
    async with receiving(tmp_path / "spool", pacs.url, patched) as it:
        patched(Spool, "end", FailsOnce(Spool.end, FULL))
        await sent(it.port, series())
        await until(lambda: bool(pacs.stored) and not it.waiting())
    told = capsys.readouterr().err
    assert "objects of ENDO at 127.0.0.1 wait for the disk of the spool: No space left on device" in told
    assert "broke off" not in told
    assert "Traceback" not in told


def test_an_association_that_has_ended_and_waits_for_the_disk_did_not_break_off(
    tmp_path: Path, patched: Patches, caplog: pytest.LogCaptureFixture
) -> None:
    """Also if its thread ends before its connection is closed."""
    spool, arrived = Spool(tmp_path / "spool"), threading.Event()
    metrics = NodeMetrics(CollectorRegistry(), spool)
    limits = {"max_bytes": 10, "max_pixels": 10}
    received = Receiver(spool, arrived.set, ae_title=TITLE, callers=(), metrics=metrics, **limits)
    ended = Association(AE("ENDO"), "requestor")  # never started, so its threads are not alive
    ended.requestor.address_info = AddressInformation("127.0.0.1", 104)
    received._folders[ended] = spool.begin()
    patched(Spool, "end", FailsOnce(Spool.end, FULL))
    mine, of_peer = socket.socketpair()
    with mine, of_peer:
        ended.dul.socket = AssociationSocket(ended, mine)
        received._ended(Event(ended, evt.EVT_CONN_CLOSE))
        received.sweep()
    assert arrived.is_set()
    assert "wait for the disk of the spool" in caplog.text
    assert "broke off" not in caplog.text


def test_an_object_that_is_too_large_takes_no_more_room_from_then_on(tmp_path: Path) -> None:
    made = Parts(tmp_path, max_bytes=10)
    part = made.make(delete=False)
    part.write(bytes(10))
    made.check(Path(part.name))
    part.write(bytes(1))
    assert list(tmp_path.iterdir()) == []
    part.write(bytes(1_000_000))
    part.file.flush()
    with pytest.raises(TooManyBytes, match="more than 10 bytes; raise --max-archive-bytes"):
        made.check(Path(part.name))


def test_a_part_is_never_kept_after_the_end_of_its_association(tmp_path: Path) -> None:
    made, found = Parts(tmp_path, max_bytes=10), list[Part]()
    thread = threading.Thread(target=lambda: found.append(made.make()))
    thread.start()
    thread.join()
    mine = made.make()
    made.give_up()
    assert [str(path) for path in tmp_path.iterdir()] == [mine.name]
    with pytest.raises(ConnectionAbortedError, match="the peer has left"):
        made.check(Path(found[0].name))
    made.check(Path(mine.name))
    made.give_up(threading.current_thread())
    assert list(tmp_path.iterdir()) == []
