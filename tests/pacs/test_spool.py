"""A crash at any moment leaves each object in one place, from which the next start goes on."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from model import files
from service.pacs import spool as spool_module
from service.pacs.spool import Spool, SpoolError, objects
from tests.support.patching import Patches


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def after_a_crash(spool: Spool) -> Spool:
    """Return the spool that the next process makes of the same folder."""
    spool.close()
    return Spool(spool.path)


def received(spool: Spool, *names: str) -> Path:
    folder = spool.begin()
    for name in names:
        (folder / name).write_bytes(name.encode())
    spool.end(folder)
    return spool.received()[-1]


def test_objects_of_an_association_that_a_crash_cuts_off_are_segmented(spool: Spool) -> None:
    (spool.begin() / "1.dcm").write_bytes(b"1")
    (spool.parts / "half").write_bytes(b"half an object, of which the peer has no success")
    assert spool.received() == []
    (folder,) = after_a_crash(spool).received()
    assert [file.name for file in folder.iterdir()] == ["1.dcm"]
    assert list(spool.parts.iterdir()) == []


def test_an_association_without_objects_leaves_nothing(spool: Spool) -> None:
    spool.end(spool.begin())
    assert spool.received() == []


def test_what_was_segmented_half_is_segmented_again(spool: Spool) -> None:
    folder = received(spool, "1.dcm")
    (folder / "made").mkdir()
    (folder / "made" / "1.dcm").write_bytes(b"of the process that was killed")
    again = after_a_crash(spool)
    assert again.received() == [folder]
    again.segmented(folder, {"1.dcm": b"whole"})
    assert [file.read_bytes() for file in again.to_store()] == [b"whole"]


@pytest.mark.parametrize("moved", [False, True])
def test_what_was_segmented_is_not_segmented_again(spool: Spool, moved: bool) -> None:
    """The kill comes after the Segmentations are complete or in their place, and before the objects are deleted."""
    folder = received(spool, "1.dcm", "2.dcm")
    (folder / "made").mkdir()
    (folder / "made" / "1.dcm").write_bytes(b"whole")
    done = folder.rename(folder.with_name(f"{folder.name}.done"))
    if moved:
        (done / "made").rename(spool.path / "segmented" / folder.name)
    again = after_a_crash(spool)
    assert again.received() == []
    assert [file.read_bytes() for file in again.to_store()] == [b"whole"]
    assert not done.exists()
    assert again.begin().name == "00000002"


def test_what_an_operator_puts_back_is_never_taken_for_what_is_done(spool: Spool) -> None:
    """Of one association, one object failed, and the Segmentation of the others waits for the PACS."""
    folder = received(spool, "1.dcm", "2.dcm")
    failed = spool.fail([folder / "2.dcm"], "it is damaged")
    spool.segmented(folder, {"1.dcm": b"of 1"})
    failed.rename(folder)
    again = after_a_crash(spool)
    (back,) = again.received()
    assert [file.name for file in objects(back)] == ["2.dcm"]
    again.segmented(back, {"1.dcm": b"of 2"})
    assert [file.read_bytes() for file in again.to_store()] == [b"of 1", b"of 2"]


def test_objects_go_once_their_segmentations_are_there_and_these_once_they_are_stored(spool: Spool) -> None:
    first, second = received(spool, "1.dcm"), received(spool, "2.dcm", "3.dcm")
    spool.segmented(first, {"1.dcm": b"of 1"})
    spool.segmented(second, {"1.dcm": b"of 2", "2.dcm": b"of 3"})
    assert spool.received() == []
    assert [file.read_bytes() for file in spool.to_store()] == [b"of 1", b"of 2", b"of 3"]
    for file in spool.to_store():
        spool.stored(file)
    assert sorted(path.name for path in spool.path.rglob("*")) == [
        ".lock", "failed", "parts", "received", "receiving", "segmented",
    ]  # fmt: skip


def test_a_number_is_not_given_twice(spool: Spool) -> None:
    """Otherwise what failed yesterday would lie among what fails today."""
    spool.fail([received(spool, "1.dcm") / "1.dcm"], "it is damaged")
    assert after_a_crash(spool).begin().name == "00000002"


def test_what_fails_is_kept_beside_the_reason(spool: Spool) -> None:
    folder = received(spool, "1.dcm", "2.dcm")
    kept = spool.fail([folder / "2.dcm"], "frame 1 is damaged")
    assert sorted(file.name for file in kept.iterdir()) == ["2.dcm", "reasons.txt"]
    assert (kept / "reasons.txt").read_text() == "2.dcm: frame 1 is damaged\n"
    assert [file.name for file in folder.iterdir()] == ["1.dcm"]


def test_segmentations_that_a_full_disk_cuts_off_take_no_room_from_those_of_other_objects(
    spool: Spool, patched: Patches
) -> None:
    folder, write = received(spool, "1.dcm"), files.write

    def full(path: Path, content: bytes, **options: Any) -> None:
        if content == b"of 2":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content, **options)

    patched(spool_module.files, "write", full)
    with pytest.raises(OSError, match="No space left"):
        spool.segmented(folder, {"1.dcm": b"of 1", "2.dcm": b"of 2"})
    assert [path.name for path in folder.iterdir()] == ["1.dcm"]
    assert spool.received() == [folder]


def test_what_fails_stays_where_it_is_while_the_disk_has_no_room_for_the_reason(spool: Spool) -> None:
    folder = received(spool, "1.dcm")
    kept = spool.path / "failed" / folder.name
    kept.mkdir()
    (kept / "reasons.txt").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        spool.fail([folder / "1.dcm"], "it is damaged")
    assert objects(folder) == [folder / "1.dcm"]


def test_an_association_of_which_every_object_failed_is_done(spool: Spool) -> None:
    folder = received(spool, "1.dcm")
    spool.fail([folder / "1.dcm"], "it is damaged")
    spool.segmented(folder, {})
    assert spool.received() == []
    assert spool.to_store() == []


def test_the_folder_is_private_since_objects_name_patients(spool: Spool) -> None:
    folder = received(spool, "1.dcm")
    assert {path.stat().st_mode & 0o077 for path in (spool.path / "received", folder)} == {0}


def test_two_processes_never_share_a_folder(spool: Spool) -> None:
    arriving = spool.parts / "arriving.dcm"
    arriving.write_bytes(b"half")
    with pytest.raises(SpoolError, match="another process"):
        Spool(spool.path)
    assert arriving.exists()


def test_reasons_that_an_operator_moves_with_a_segmentation_are_not_stored(spool: Spool) -> None:
    spool.segmented(received(spool, "1.dcm"), {"1.dcm": b"of 1"})
    (spool.to_store()[0].parent / "reasons.txt").touch()
    assert [file.name for file in spool.to_store()] == ["1.dcm"]


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError, match=r"file.*folder"):
        Spool(tmp_path / "file" / "spool")


def test_objects_beside_segmentations_are_not_stored(spool: Spool) -> None:
    """An operator may move the whole folder."""
    spool.segmented(received(spool, "1.dcm"), {"1.dcm": b"of 1"})
    (spool.to_store()[0].parent / "1.2.840.1.dcm").write_bytes(b"an object")
    assert [file.name for file in spool.to_store()] == ["1.dcm"]


def test_what_is_put_back_while_the_command_runs_hides_no_segmentation(spool: Spool) -> None:
    folder = received(spool, "1.dcm")
    spool.segmented(folder, {"1.dcm": b"of 1"})  # the PACS is away
    folder.mkdir()
    (folder / "2.dcm").write_bytes(b"2")
    spool.segmented(folder, {"1.dcm": b"of 2"})
    assert sorted(file.read_bytes() for file in spool.to_store()) == [b"of 1", b"of 2"]
    assert after_a_crash(spool).received() == []


def test_names_are_on_the_disk_before_what_they_replace_goes(spool: Spool, patched: Patches) -> None:
    synced: list[str] = []
    patched(spool_module, "sync", lambda folder: synced.append(folder.name))
    folder = received(spool, "1.dcm")
    assert synced == ["receiving"]
    spool.segmented(folder, {"1.dcm": b"whole"})
    assert synced == ["receiving", "made", "received", "segmented"]


@pytest.mark.parametrize("error", [None, PermissionError])
def test_a_folder_that_moves_on_or_may_not_be_read_does_not_keep_the_others_from_being_counted(
    error: type[OSError] | None, spool: Spool, patched: Patches
) -> None:
    folder, _ = received(spool, "1.dcm"), received(spool, "2.dcm", "reasons.txt")
    scandir = os.scandir

    def moving(path: "str | os.PathLike[str]") -> "os._ScandirIterator[str]":
        if Path(path) == folder and error:
            raise error
        if Path(path) == folder:
            folder.rename(spool.path / "segmented" / folder.name)
        return scandir(path)

    patched(os, "scandir", moving)
    assert spool.counts()["received"]() == 1


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOENT, "restart the command, which makes its folders again"),
        (errno.ENOSPC, "free some space"),
        (errno.EIO, "check the disk and the permissions"),
    ],
)
def test_what_is_wrong_with_the_spool_is_told_with_what_to_do(spool: Spool, number: int, advice: str) -> None:
    told = spool_module.why(OSError(number, os.strerror(number)), spool.path)
    assert told == f"the spool cannot be used: {os.strerror(number)}: {spool.path}; {advice}"


def test_a_restart_makes_the_folders_of_a_spool_again(spool: Spool) -> None:
    spool.parts.rmdir()
    assert after_a_crash(spool).parts.is_dir()
