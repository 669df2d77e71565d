"""No command destroys a file: inputs stay as they are, and so does what is there, through a kill and on a full disk."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.commands.main import main
from tests.support import videos
from tests.support.dicom_objects import dicom, written
from tests.support.pictures import ROOT, SAMPLES, annotation
from tests.support.processes import Server

RECIPE = "steps = 1\nbatch = 1\nlearning_rate = 1e-3\n[[phases]]\nstart = 0\nsizes = [64]\n"
EARLIER = b"what was there"
CPU = ("--device", "cpu")

Words = Callable[
    [Path, Path, Path], list[object]
]  # of a folder with inputs, one of them that is a source, and a target


@dataclass(frozen=True)
class Command:
    """A command that writes; ``made`` is a file that it makes in its target, none if the target is the file."""

    name: str
    flag: str
    source: str
    target: str
    words: Words
    made: str = ""
    overwrites: bool = True
    takes_folder: bool = False  # its source is a folder that must not be its target
    limit: int = 64  # bytes that a file may have on the full disk

    def __str__(self) -> str:
        return self.name


def pairs(place: Path) -> list[object]:
    return ["--images", place / "set" / "images", "--masks", place / "set" / "masks"]


COMMANDS = (
    Command(
        "segment", "--out", "frames", "masks", lambda _, source, out: ["segment", source, "-o", out, *CPU],
        made="polyp-1.png.png", takes_folder=True,
    ),
    Command(
        "segment-object", "--out", "study.dcm", "seg.dcm",
        lambda _, source, out: ["segment", source, "--out", out, *CPU],
    ),
    Command(
        "segment-video", "--out", "v.mp4", "masks", lambda _, source, out: ["segment", source, "-o", out, *CPU],
        made="v.mp4.frames/00000001.png",
    ),
    Command(
        "segment-rows", "--csv", "frames/polyp-1.png", "rows.csv",
        lambda place, source, out: ["segment", source, "-o", place / "rows-masks", "--csv", out, *CPU],
        limit=32,
    ),
    Command(
        "segment-overlay", "--out", "v.mp4", "overlay.mp4",
        lambda _, source, out: ["segment", source, "-o", out, *CPU],
    ),
    Command(
        "segment-overlay-masks", "--save-masks", "v.mp4", "masks",
        lambda place, source, out: ["segment", source, "-o", place / "o.mp4", "--save-masks", out, *CPU],
        made="00000001.png",
    ),
    Command(
        "segment-overlay-lines", "--save-masks", "v.mp4", "lines.ndjson",
        lambda place, source, out: ["segment", source, "-o", place / "o.mp4", "--save-masks", out, *CPU],
    ),
    Command(
        "stream", "--out", "v.mp4", "out.mp4",
        lambda _, source, out: ["stream", source, "--out", out, "--policy", "every"],
    ),
    Command(
        "stream-masks", "--save-masks", "frames", "masks",
        lambda _, source, out: ["stream", source, "--save-masks", out, "--policy", "every"],
        made="00000000.png", takes_folder=True, overwrites=False,
    ),
    Command(
        "stream-record", "--record", "frames", "session",
        lambda _, source, out: ["stream", source, "--record", out, "--policy", "every"],
        made="masks/00000000.png", takes_folder=True, overwrites=False,
    ),
    Command(
        "convert", "OUT", "w.safetensors", "c.safetensors",
        lambda _, source, out: ["weights", "convert", source, out],
    ),
    Command(
        "blend", "OUT", "w.safetensors", "b.safetensors",
        lambda _, source, out: ["weights", "blend", source, source, out],
    ),
    Command(
        "export-onnx", "--out", "w.safetensors", "w.onnx",
        lambda _, source, out: ["export", "--onnx", "--weights", source, "--out", out],
    ),
    Command(
        "export-triton", "--out", "w.safetensors", "repository",
        lambda _, source, out: ["export", "--triton", "--weights", source, "--out", out],
        made="pranet/1/model.onnx",
    ),
    Command(
        "export-int8", "--out", "frames/polyp-1.png", "w.int8.safetensors",
        lambda place, source, out: [
            "export", "--int8", "--weights", place / "w.safetensors", "--calibrate", source.parent, "--out", out,
        ],
    ),
    Command(
        "train", "--out", "w.safetensors", "run",
        lambda place, source, out: ["train", place / "tiny.toml", *pairs(place), "--init", source, "--out", out, *CPU],
        made="last.safetensors", limit=100_000,
    ),
    Command(
        "evaluate", "--out", "pictures.csv", "report",
        lambda place, source, out: [
            "evaluate", "--weights", place / "w.safetensors", *pairs(place), "--baseline", source, "--out", out, *CPU,
        ],
        made="pictures.csv",
    ),
    Command(
        "evaluate-calibrate", "--calibrate", "w.safetensors", "c.safetensors",
        lambda place, source, out: [
            "evaluate", "--weights", source, *pairs(place), "--clean", place / "clean", "--calibrate", out, *CPU,
        ],
    ),
    Command(
        "bench", "--out", "w.safetensors", "results",
        lambda _, source, out: [
            "bench", "engine", "--weights", source, *CPU, "--batch-sizes", 1, "--seconds", 0.1, "--warm-up", 0,
            "-o", out,
        ],
        made="engine.json",
    ),
    Command(
        "bench-fidelity", "--out", "w.safetensors", "results",
        lambda place, source, out: [
            "bench", "fidelity", "--weights", source, *pairs(place), *CPU, "--precisions", "fp16", "-o", out,
        ],
        made="fidelity.json",
    ),
    Command(
        "bench-overhead", "--out", "frames", "results",
        lambda _, source, out: [
            "bench", "overhead", "--images", source, "--over", "rest", "--concurrency", 1, "--seconds", 0.2,
            "--warm-up", 0, "--rounds", 1, "-o", out,
        ],
        made="overhead.json", takes_folder=True,
    ),
)  # fmt: skip
# One command of each way to write; `make long-check` tries all others, too.
USUAL = {"segment", "segment-rows", "segment-overlay", "stream-masks", "convert"}
EACH = [pytest.param(each, id=each.name, marks=[] if each.name in USUAL else pytest.mark.long) for each in COMMANDS]
REPLACING = [each for each in EACH if each.id != "stream-record"]  # it grows, in a folder that was empty
WAYS = ("same", "link", "hard link", "..")
FOLDERS_OF_VIDEOS = ("segment-video", "segment-overlay-masks")
NEVER = {
    (name, way) for name in FOLDERS_OF_VIDEOS for way in ("same", "..")
}  # no frame of a video has the name of a video
ALIASES = [(each, way) for each in COMMANDS for way in WAYS if (each.name, way) not in NEVER]


@pytest.fixture
def place(tmp_path: Path, weights: Path) -> Path:
    """Return a folder with an input of every kind."""
    for name in ("frames", "clean", "set/images", "set/masks"):
        (tmp_path / name).mkdir(parents=True)
    picture = Image.open(SAMPLES[0]).convert("RGB").resize((96, 80))
    for folder in ("frames", "set/images"):
        picture.save(tmp_path / folder / "polyp-1.png")
    Image.new("RGB", (96, 80), (150, 80, 70)).save(tmp_path / "clean" / "none.png")
    Image.fromarray(annotation(SAMPLES[0]) * np.uint8(255)).resize((96, 80)).save(tmp_path / "set/masks/polyp-1.png")
    (tmp_path / "study.dcm").write_bytes(written(dicom([picture])))
    (tmp_path / "tiny.toml").write_text(RECIPE)
    (tmp_path / "pictures.csv").write_text("name,dice\nset/polyp-1,0.5\n")
    shutil.copy(weights, tmp_path / "w.safetensors")
    videos.write(tmp_path / "v.mp4", [picture] * 3)
    return tmp_path


def contents(place: Path) -> dict[str, str]:
    """Return what every file holds, without drafts."""
    every = (path for path in place.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest() for path in every}


def there(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(EARLIER)
    return path


def refused(words: list[object], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(list(map(str, words))) == 2
    return capsys.readouterr().err


KILLED = """
import os, signal

whole, rename = os.replace, os.environ["KILLED_AT"]
os.replace = lambda a, b: os.kill(os.getpid(), signal.SIGKILL) if str(b).endswith(rename) else whole(a, b)
"""
FULL = """
import os, resource

resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["LIMIT"]),) * 2)
"""
RUN = "import sys; from service.commands.main import main; sys.exit(main())"


def replacing(command: Command, place: Path, server: Server) -> list[str]:
    """Return the command line, with ``--overwrite`` where the command has that."""
    words = command.words(place, place / command.source, place / command.target)
    words += ["--server", server.grpc_address] if command.name.startswith("stream") else []
    words += ["--overwrite"] if command.overwrites else []
    return [*map(str, words)]


def ran(
    first: str, command: Command, place: Path, server: Server, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Run a command in a process of its own, after some lines of Python."""
    return subprocess.run(
        [sys.executable, "-c", f"{first}\n{RUN}", *replacing(command, place, server)],
        cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False,
    )  # fmt: skip


def aliased(command: Command, way: str, place: Path) -> tuple[Path, Path]:
    """Return a source and a target of which one file is the same."""
    source, target = place / command.source, place / command.target
    made = target / command.made
    if command.takes_folder and way != "hard link":
        if way == "link":
            target.symlink_to(source)
            return source, target
        return source, source if way == "same" else source / ".." / source.name
    made.parent.mkdir(parents=True, exist_ok=True)
    if way == "link":
        made.symlink_to(source)
    elif way == "hard link":
        made.hardlink_to(source / "polyp-1.png" if source.is_dir() else source)
    else:
        source.rename(made)
        source = made if way == "same" else made.parent / ".." / made.parent.name / made.name
    return source, target


@pytest.mark.parametrize(("command", "way"), ALIASES, ids=str)
def test_no_command_writes_over_an_input(
    command: Command, way: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = aliased(command, way, place)
    before = contents(place)
    told = refused([*command.words(place, source, target), "--overwrite"], capsys)
    assert command.flag in told
    assert "input" in told or (not command.overwrites and "not empty" in told)
    assert "give another" in told or "give a new folder" in told
    assert contents(place) == before


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_no_command_replaces_what_is_there_unless_it_is_told_to(
    command: Command, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there(place / command.target / command.made)
    before = contents(place)
    told = refused(command.words(place, place / command.source, place / command.target), capsys)
    assert command.flag in told
    assert ("--overwrite" if command.overwrites else "give a new folder") in told
    assert contents(place) == before


@pytest.mark.slow
@pytest.mark.parametrize("command", REPLACING)
def test_a_kill_at_the_last_moment_leaves_what_was_there(command: Command, place: Path, server: Server) -> None:
    made = place / command.target / command.made
    if command.overwrites:
        there(made)
    before = contents(place)
    ended = ran(KILLED, command, place, server, KILLED_AT=made.name)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert before.items() <= contents(place).items()
    assert made.exists() == command.overwrites


@pytest.mark.slow
@pytest.mark.parametrize("command", EACH)
def test_a_full_disk_leaves_what_was_there_and_is_said_with_the_flag(
    command: Command, place: Path, server: Server
) -> None:
    made = place / command.target / command.made
    if command.overwrites:
        there(made)
    before = contents(place)
    ended = ran(FULL, command, place, server, LIMIT=str(command.limit))
    assert ended.returncode not in (0, -signal.SIGKILL)
    assert "Traceback" not in ended.stderr
    assert f"{command.flag} {place / command.target}" in ended.stderr, ended.stderr
    assert "File too large" in ended.stderr
    assert before.items() <= contents(place).items()
    assert not list(place.rglob(".*draft*"))


@pytest.mark.slow
@pytest.mark.parametrize("command", [each for each in EACH if each.values[0].overwrites])
def test_what_is_there_is_replaced_when_that_is_asked_for(command: Command, place: Path, server: Server) -> None:
    made = there(place / command.target / command.made)
    assert main(replacing(command, place, server)) == 0
    assert made.read_bytes() != EARLIER
    assert not list(place.rglob(".*draft*"))
