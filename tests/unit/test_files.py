"""Files of commands: natural order, and a target that is replaced whole."""

import argparse
import errno
import fcntl
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from model import files
from model.errors import TargetError
from model.evaluation import comparison
from model.targets import Targets
from model.training.data.pairs import clean_frames, find_pairs, pictures_in
from service.commands import export
from service.commands.bench import pictures
from service.commands.segment import jobs
from service.commands.video.source import open_source
from tests.support.patching import Patches
from tests.support.pictures import encoded, red_box

COUNTED = ["Frame1", "frame2", "frame9b", "frame10", "frame010", "frame100"]


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Return a folder of frames, made in another order; each is as wide as its place."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for width, name in sorted(enumerate(COUNTED, 1), key=lambda pair: pair[1][::-1]):
        (folder / f"{name}.png").write_bytes(encoded(red_box(width, 4, (0, 0, 1, 1))))
    (folder / ".frame3.draft.png").touch()
    (folder / "frame4.png").mkdir()
    (folder / "notes.txt").touch()
    return folder


def natural_order(folder: Path) -> list[str]:
    return [f"{name}.png" for name in sorted(COUNTED, key=lambda name: files.natural(Path(name)))]


def test_people_count_from_two_to_ten() -> None:
    given = [Path("b/1.png"), *map(Path, ("a10/2.png", "a9/10.png", "a9/2.png", "10.png", "x.png", "2.png"))]
    assert [str(path) for path in sorted(given, key=files.natural)] == [
        "2.png", "10.png", "a9/2.png", "a9/10.png", "a10/2.png", "b/1.png", "x.png",
    ]  # fmt: skip


def test_every_folder_is_listed_in_natural_order(frames: Path) -> None:
    order = natural_order(frames)
    assert order[0] == "Frame1.png"
    assert order.index("frame2.png") < order.index("frame9b.png") < order.index("frame10.png")
    assert [path.name for path in files.listed(frames, {".png"})] == order
    assert [job.source.name for job in jobs.plan([frames], frames / "out", ".png")] == order
    sent = [(frames / name).read_bytes() for name in order]
    assert [each.picture for each in open_source(str(frames)).pictures] == sent
    assert pictures.read(frames) == sent
    calibrated_on = export._frames(export._listed([frames]), set(), 10**6)
    assert [pixels.shape for pixels in calibrated_on] == [(3, 352, 352)] * len(order)
    assert [path.name for path in pictures_in(frames)] == order
    assert [pair.image.name for pair in find_pairs(frames, frames)] == order
    assert [pair.image.name for pair in clean_frames(frames)] == order
    assert [pair.image.name for pair in comparison.pairs([frames], [frames])] == order


def test_a_folder_that_may_not_be_listed_is_listed_itself_and_the_others_go_on(frames: Path, patched: Patches) -> None:
    (frames / "closed").mkdir()
    shutil.copy(frames / "frame2.png", frames / "closed")
    scandir = os.scandir

    def refusing(path: Path) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    patched(os, "scandir", refusing)
    assert [path.name for path in files.listed(frames, {".png"}, deep=True)] == ["closed", *natural_order(frames)]
    assert [path.name for path in files.listed(frames, {".png"})] == natural_order(frames)
    Targets([frames / "closed"], argparse.Namespace(overwrite=False)).wants("--out", frames / "mask.png")
    with pytest.raises(PermissionError):
        files.listed(frames / "closed", {".png"})


def test_a_link_to_nothing_is_listed_so_that_it_is_missed(frames: Path) -> None:
    (frames / "frame3.png").symlink_to("gone")
    (frames / "notes").symlink_to("gone")
    assert "frame3.png" in [path.name for path in files.listed(frames, {".png"})]
    planned = [job.source.name for job in jobs.plan([frames, frames / "frame2.png"], frames / "out", ".png")]
    assert sorted(planned) == sorted([*natural_order(frames), "frame3.png"])


def test_a_file_that_cannot_be_looked_at_is_listed(frames: Path) -> None:
    (frames / "frame3.png").symlink_to("frame3.png")  # a loop
    assert "frame3.png" in [path.name for path in files.listed(frames, {".png"})]


def test_links_to_folders_are_not_followed(frames: Path) -> None:
    (frames / "again").symlink_to(frames)
    assert [path.name for path in files.listed(frames, {".png"}, deep=True)] == natural_order(frames)


def test_a_mask_is_found_by_the_name_that_the_command_gives_it(tmp_path: Path) -> None:
    for name in ("images/a.jpg", "images/b.jpg", "masks/a.jpg.png", "masks/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_pairs(tmp_path / "images", tmp_path / "masks")
    assert [pair.mask.name for pair in found if pair.mask] == ["a.jpg.png", "b.png"]


def test_a_new_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    files.write(tmp_path / "new", "text")
    files.write(tmp_path / "private", b"text", mode=files.PRIVATE)
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "other").stat().st_mode
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600


def test_a_device_is_written_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    assert Targets([], argparse.Namespace(overwrite=False)).wants("--out", pipe)
    files.write(pipe, b"mask")
    reader.join()
    assert read == [b"mask"]
    assert pipe.is_fifo()


def test_two_commands_do_not_write_one_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "w"
    with files.replacing(path) as draft:
        draft.write_bytes(b"one")
        with pytest.raises(TargetError, match="another command is writing"):
            files.write(path, b"other")
    assert path.read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["w"]


def test_a_draft_of_a_killed_command_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / ".w.draft").write_bytes(b"half of what was longer")
    (tmp_path / ".w.draft").chmod(0o400)
    files.write(tmp_path / "w", b"whole")
    assert (tmp_path / "w").read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["w"]


def broken_off(path: Path, content: bytes, error: BaseException) -> None:
    """Write a file that is kept after an interruption, and end with an error."""

    def write() -> None:
        with files.replacing(path, partial=(KeyboardInterrupt,)) as draft:
            draft.write_bytes(content)
            raise error

    with pytest.raises(type(error)):
        write()


def test_what_was_written_until_an_interruption_is_kept_if_it_is_anything(tmp_path: Path) -> None:
    path = tmp_path / "v"
    path.write_bytes(b"earlier")
    for content, kept in ((b"", b"earlier"), (b"half", b"half")):
        broken_off(path, content, KeyboardInterrupt())
        assert path.read_bytes() == kept
    broken_off(path, b"broken", ValueError())
    assert path.read_bytes() == b"half"


def test_a_lock_that_cannot_be_had_is_no_stale_draft(tmp_path: Path) -> None:
    draft = tmp_path / ".w.draft"
    draft.touch()
    with draft.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(TargetError, match="another command"):
            files.write(tmp_path / "w", b"")
    assert draft.exists()
