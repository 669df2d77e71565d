"""Objects and Segmentations that cannot go on now stay in the spool until they can."""

import asyncio
import contextlib
import errno
import io
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from pkgutil import resolve_name
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from pydicom import dcmread
from pydicom.uid import JPEGBaseline8Bit, generate_uid

from pranet_client.credentials import NO_ACCESS
from service.pacs.spool import Spool
from service.pacs.stow import REASONS, Absent, Pacs, Refused
from tests.support.dicom_objects import HAS_DICOM, NO_DICOM, PICTURES, dicom
from tests.support.patching import FailsOnce, Patches
from tests.support.predictors import PATIENCE, RedPredictor
from tests.support.processes import PROGRAM
from tests.support.servers.orthanc import INSTALLED, USER, orthanc
from tests.support.servers.stow import Stow, stow
from tests.support.serving import free_port, until

if not HAS_DICOM:
    pytest.skip(NO_DICOM, allow_module_level=True)

from service.commands import receive
from service.commands.main import parser_of
from service.dicom import work
from service.pacs import node
from service.pacs.receiver import Receiver
from tests.support.servers.dicom_node import receiving, sent, series, sources

RECEIVED, TO_STORE, STORED, REFUSE = (
    f"service.pacs.spool.Spool.{name}" for name in ("received", "to_store", "stored", "refused")
)
AT_WORK = ["service.pacs.node.Node._read", RECEIVED, TO_STORE, STORED, REFUSE]
FINISH = "service.pacs.spool.Spool.finish"
COUNT, STOP = "service.pacs.spool._objects", "service.pacs.receiver.Receiver.stop"
SWEEP = "service.pacs.receiver.Receiver.sweep"
ADVICE = "let the user of pranet receive read it"


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
        await until(lambda: len(pacs.stored) == 1)
        await until(lambda: it.waiting() == [f"{objects[1].SOPInstanceUID}.dcm", "reasons.txt"])
    assert len(reasons) == 1
    assert reasons[0].startswith(f"{objects[1].SOPInstanceUID}.dcm: the DICOM frame is damaged")
    assert [sources(each) for each in pacs.stored] == [[objects[0].SOPInstanceUID, objects[2].SOPInstanceUID]]


async def test_an_object_that_fails_alone_holds_up_nothing(
    pacs: Stow, tmp_path: Path, patched: Patches, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = dicom([PICTURES[0]], JPEGBaseline8Bit)
    bad.PixelData = bad.PixelData[: len(bad.PixelData) // 4] + bytes(3 * len(bad.PixelData) // 4)
    async with receiving(tmp_path / "spool", pacs.url, patched) as it:
        await sent(it.port, [bad])
        await it.failed()
        await sent(it.port, series())
        await until(lambda: bool(pacs.stored))
    assert "the spool cannot be used" not in capsys.readouterr().err


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
    assert "Segmentations are not stored: it is out of resources; next attempt in" in told
    assert "Segmentations are not stored: HTTP 503, check --stow-url; next attempt in" in told


async def test_a_page_to_log_in_is_not_taken_for_a_pacs(
    pacs: Stow, tmp_path: Path, patched: Patches, capsys: pytest.CaptureFixture[str]
) -> None:
    patched(node, "FIRST_WAIT", 0.05)
    pacs.log_in = True
    async with receiving(tmp_path / "spool", pacs.url, patched) as it:
        await sent(it.port, series())
        await until(lambda: len(pacs.headers) > 2)
        assert it.waiting() == ["1.dcm"]
        pacs.log_in, pacs.content_type = False, "application/dicom+xml"
        await until(lambda: bool(pacs.stored) and not it.waiting())
    assert "HTTP 200, but not as a DICOMweb server answers, check --stow-url" in capsys.readouterr().err


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
    patched(receive, "MOST_HANG_SECONDS", 0.2)
    let = threading.Event()
    async with receiving(tmp_path / "spool", pacs.url, patched, predictor=RedPredictor(lambda _: let.wait())) as it:
        await sent(it.port, series())
        assert await it.running == receive.INFERENCE_DEAD
        assert len(it.waiting()) == 3
    let.set()
    async with receiving(tmp_path / "spool", pacs.url, patched) as it:
        await until(lambda: bool(pacs.stored) and not it.waiting())
    assert len(sources(pacs.stored[0])) == 3


@pytest.mark.slow
@pytest.mark.parametrize("at", [*AT_WORK, COUNT, STOP])
def test_a_disk_that_never_answers_does_not_hold_the_end_up(
    at: str, pacs: Stow, tmp_path: Path, patched: Patches
) -> None:
    hangs, answers, returned, usual = threading.Event(), threading.Event(), threading.Event(), Receiver.stop

    def hang(*arguments: Any) -> None:
        if at == STOP:
            usual(*arguments)
        hangs.set()
        answers.wait(PATIENCE)
        returned.set()

    async def session() -> None:
        async with receiving(tmp_path / "spool", pacs.url, patched) as it:
            patched(*at.rsplit(".", 1), hang)
            await sent(it.port, series())
            assert at not in AT_WORK or await asyncio.to_thread(hangs.wait, PATIENCE)
            os.kill(os.getpid(), signal.SIGTERM)
            assert await it.running == 0

    if at == REFUSE:
        pacs.status, pacs.reason = 409, 0x0122
    try:
        asyncio.run(session())
        assert hangs.is_set()
        assert not returned.is_set()
    finally:
        answers.set()


@pytest.mark.parametrize("at", [RECEIVED, TO_STORE, "service.pacs.spool.Spool.end", FINISH, SWEEP])
async def test_an_error_of_the_disk_delays_the_work_and_does_not_end_it(
    at: str, pacs: Stow, tmp_path: Path, patched: Patches
) -> None:
    patched(node, "FIRST_WAIT", 0.05)
    patched(node, "LONGEST_WAIT", 0.05)
    patched(receive, "SWEEP_SECONDS", 0.05)
    fails_once = FailsOnce(resolve_name(at), OSError(errno.EIO, "Input/output error"))
    async with receiving(tmp_path / "spool", pacs.url, patched) as it:
        patched(*at.rsplit(".", 1), fails_once)
        await sent(it.port, series())
        await until(lambda: fails_once.again.is_set() and bool(pacs.stored) and not it.waiting())


async def test_objects_that_an_operator_deletes_are_told_of_once_and_hold_nothing_up(
    pacs: Stow, tmp_path: Path, patched: Patches, capsys: pytest.CaptureFixture[str]
) -> None:
    patched(receive, "SWEEP_SECONDS", 0.05)
    error = OSError(errno.EIO, "Input/output error")
    deletes_once = FailsOnce(Spool.end, error, before=lambda _, folder: shutil.rmtree(folder))
    async with receiving(tmp_path / "spool", pacs.url, patched) as it:
        patched(Spool, "end", deletes_once)
        sweeps = patched(Receiver, "sweep")
        await sent(it.port, series())
        await until(deletes_once.failed.is_set)
        at_first = sweeps.count
        await until(lambda: sweeps.count > at_first + 5)
        told = capsys.readouterr().err
        await sent(it.port, series())
        await until(lambda: bool(pacs.stored) and not it.waiting())
    assert told.count("objects of ENDO at 127.0.0.1 are lost, since ") == 1
    assert "No such file or directory" not in told


async def test_what_cannot_be_set_aside_now_is_set_aside_later(pacs: Stow, tmp_path: Path, patched: Patches) -> None:
    patched(node, "LONGEST_WAIT", 0.05)

    def fault(folder: Path, max_bytes: int) -> list[list[Path]]:
        raise OverflowError("a number that nobody thought of")

    patched(node, "groups", fault)
    patched(Spool, "fail", FailsOnce(Spool.fail, OSError(errno.ENOSPC, "No space left on device")))
    async with receiving(tmp_path / "spool", pacs.url, patched) as it:
        await sent(it.port, series()[:1])
        await it.failed()
        assert not it.running.done()


@pytest.mark.parametrize("at", ["service.commands.receive._left", STOP])
async def test_a_disk_with_an_error_does_not_change_the_exit_code(
    at: str, pacs: Stow, tmp_path: Path, patched: Patches, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = Receiver.stop

    def fail(*arguments: Any) -> None:
        if at == STOP:
            usual(*arguments)
        raise OSError(errno.EIO, "Input/output error", "receiving")

    async with receiving(tmp_path / "spool", pacs.url, patched) as it:
        patched(*at.rsplit(".", 1), fail)
        await sent(it.port, series()[:1])
        os.kill(os.getpid(), signal.SIGTERM)
        assert await it.running == 0
    assert ("objects in the spool: unknown, its disk cannot be read" in capsys.readouterr().err) == (at != STOP)


def test_a_fault_ends_the_process_although_a_thread_may_hang(tmp_path: Path, patched: Patches) -> None:
    ends: list[int] = []

    async def fail(*_: object) -> int:
        raise ExceptionGroup("of tasks", [ValueError("that nobody thought of")])

    before = threading.excepthook
    patched(receive, "_receive", fail)
    patched(receive.logging, "shutdown", lambda: None)
    patched(receive.os, "_exit", ends.append)
    words = ["receive", "--spool", str(tmp_path), "--stow-url", "http://127.0.0.1:1/dicom-web"]
    try:
        receive.run(parser_of(["receive"]).parse_args(words))
    finally:
        threading.excepthook = before
    assert ends == [1]


async def test_a_full_disk_delays_segmentations_and_loses_no_object(
    pacs: Stow, tmp_path: Path, patched: Patches, capsys: pytest.CaptureFixture[str]
) -> None:
    patched(node, "LONGEST_WAIT", 0.05)
    real, full = Spool.segmented, threading.Event()

    def segmented(spool: Spool, folder: Path, made: Mapping[str, bytes]) -> None:
        if not full.is_set():
            full.set()
            raise OSError(errno.ENOSPC, "No space left on device")
        real(spool, folder, made)

    patched(Spool, "segmented", segmented)
    async with receiving(tmp_path / "spool", pacs.url, patched) as it:
        await sent(it.port, series())
        await until(lambda: bool(pacs.stored) and not it.waiting())
    assert "the spool cannot be used: No space left on device: " in capsys.readouterr().err
    assert len(pacs.stored) == 1


@pytest.mark.parametrize("turns", range(4))  # of the event loop, between the objects and the cancellation
async def test_a_node_that_is_cancelled_as_objects_arrive_ends(
    turns: int, patched: Patches, caplog: pytest.LogCaptureFixture
) -> None:
    def cancel(turns: int) -> None:
        if turns:
            loop.call_soon(cancel, turns - 1)
        else:
            running.cancel()

    def groups(folder: Path, most: int) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    patched(node, "groups", groups)
    service: Any = SimpleNamespace(settings=SimpleNamespace(max_archive_bytes=0))
    spool: Any = SimpleNamespace(received=lambda: [Path()], to_store=list)
    unused: Any = None
    arrived, loop = asyncio.Event(), asyncio.get_running_loop()
    running = asyncio.create_task(node.Node(service, spool, unused, unused, unused, unused).run(arrived))
    await until(lambda: "the spool cannot be used" in caplog.text)
    arrived.set()
    cancel(turns)
    await asyncio.wait([running], timeout=PATIENCE)
    assert running.cancelled()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
async def test_a_file_that_cannot_be_read_is_kept_aside_unless_the_disk_is_to_blame(
    number: int, pacs: Stow, tmp_path: Path, patched: Patches, capsys: pytest.CaptureFixture[str]
) -> None:
    patched(node, "LONGEST_WAIT", 0.05)
    objects, read, mended = series(), Path.read_bytes, threading.Event()
    locked = f"{objects[1].SOPInstanceUID}.dcm"

    def read_bytes(file: Path) -> bytes:
        if file.name == locked and not mended.is_set():
            raise OSError(number, os.strerror(number), str(file))
        return read(file)

    async with receiving(tmp_path / "spool", pacs.url, patched) as it:
        patched(Path, "read_bytes", read_bytes)
        await sent(it.port, objects)
        if number == errno.EACCES:
            assert await it.failed() == [f"{locked}: the file cannot be read (Permission denied); {ADVICE}"]
        else:
            told = io.StringIO()
            await until(
                lambda: (
                    bool(told.write(capsys.readouterr().err))
                    and f"/{locked}; check the disk and the permissions; next" in told.getvalue()
                )
            )
            mended.set()
        await until(lambda: bool(pacs.stored))
    assert len(sources(pacs.stored[0])) == (2 if number == errno.EACCES else 3)


async def test_a_folder_that_cannot_be_read_is_named_and_holds_up_no_other(
    pacs: Stow, tmp_path: Path, patched: Patches, capsys: pytest.CaptureFixture[str]
) -> None:
    locked, read = tmp_path / "spool" / "received" / "1", node.groups

    def groups(folder: Path, max_bytes: int) -> list[list[Path]]:
        if folder == locked:
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return read(folder, max_bytes)

    patched(node, "groups", groups)
    locked.mkdir(parents=True)
    (locked / "1.dcm").touch()
    async with receiving(tmp_path / "spool", pacs.url, patched) as it:
        for _ in range(2):
            await sent(it.port, series())
        await until(lambda: len(pacs.stored) == 2)
    told = f"Permission denied: {locked}; check the disk and the permissions; next attempt in 60 s"
    assert f"the spool cannot be used: {told}" in capsys.readouterr().err


async def test_what_an_operator_puts_back_is_tried_again_whatever_it_is(
    pacs: Stow, tmp_path: Path, patched: Patches
) -> None:
    folder = tmp_path / "spool" / "received" / "7"
    folder.mkdir(parents=True)
    good = series()[0]
    good.save_as(folder / "1.dcm", enforce_file_format=True)
    (folder / "2.dcm").write_bytes(b"no object")
    (folder / "reasons.txt").write_text("1.dcm: the network failed\n")
    async with receiving(tmp_path / "spool", pacs.url, patched) as it:
        await until(lambda: bool(pacs.stored))
        assert [line.partition(":")[0] for line in await it.failed()] == ["2.dcm"]
        await until(lambda: it.waiting() == ["2.dcm", "reasons.txt"])
    assert sources(pacs.stored[0]) == [good.SOPInstanceUID]


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


async def test_what_is_no_segmentation_holds_up_none(pacs: Stow, tmp_path: Path, patched: Patches) -> None:
    folder = tmp_path / "spool" / "segmented" / "7"
    folder.mkdir(parents=True)
    (folder / "1.dcm").write_bytes(b"no object")
    async with receiving(tmp_path / "spool", pacs.url, patched) as it:
        await sent(it.port, series())
        await until(lambda: bool(pacs.stored))
        assert await it.failed() == ["1.dcm: it is no Segmentation (InvalidDicomError)"]


async def test_a_fault_in_the_work_on_an_association_is_kept_aside_with_its_objects(
    pacs: Stow, tmp_path: Path, patched: Patches
) -> None:
    def fault(folder: Path, max_bytes: int) -> list[list[Path]]:
        raise OverflowError("a number that nobody thought of")

    patched(node, "groups", fault)
    async with receiving(tmp_path / "spool", pacs.url, patched) as it:
        await sent(it.port, series()[:1])
        (line,) = await it.failed()
        assert line.endswith(": OverflowError: a number that nobody thought of")
        await until(lambda: len(it.waiting()) == 2)  # the object and its reason


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ReadTimeout])
async def test_one_segmentation_that_is_not_taken_in_time_does_not_hold_up_the_others(
    error: type[httpx.TransportError],
) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise error("")

    async with Pacs("http://pacs", NO_ACCESS) as pacs:
        pacs._client = httpx.AsyncClient(base_url="http://pacs", transport=httpx.MockTransport(fail))
        with pytest.raises(Absent, match=error.__name__) as absent:
            await pacs.store(b"", "1.2")
        assert absent.value.answered is (error is httpx.ReadTimeout)


def test_a_number_that_is_infinite_is_none() -> None:
    assert work.number_of(SimpleNamespace(InstanceNumber=float("inf"))) == float("inf")  # type: ignore[arg-type]


def of(reason: int | None, kind: str) -> httpx.Response:
    body = Stow(reason=reason, content_type=f"application/dicom+{kind}").body("1.2")
    status = {None: 200, 0x0122: 202}.get(reason, 409)
    return httpx.Response(status, content=body, headers={"content-type": f"application/dicom+{kind}"})


@pytest.mark.parametrize("kind", ["json", "xml"])
@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        (None, None),
        (0x0111, None),  # it was stored by an attempt whose answer was lost
        (0xB00E, None),
        (0xB00F, Absent),
        (0xA700, Absent),
        (0x0122, Refused),
    ],
)
async def test_what_a_pacs_answers_is_understood_in_either_format(
    reason: int | None, outcome: type[Exception] | None, kind: str
) -> None:
    async with Pacs("http://pacs", NO_ACCESS) as pacs:
        transport = httpx.MockTransport(lambda request: of(reason, kind))
        pacs._client = httpx.AsyncClient(base_url="http://pacs", transport=transport)
        with contextlib.nullcontext() if outcome is None else pytest.raises(outcome):
            await pacs.store(b"", "1.2")
