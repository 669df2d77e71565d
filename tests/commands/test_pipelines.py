"""``pranet segment`` between other programs: standard input and output, lists, rows about each picture, going on."""

import csv
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from service.commands.main import main
from service.commands.segment import inputs
from service.commands.segment.jobs import plan
from tests.support import videos
from tests.support.dicom_objects import dicom, needs_dicom, written
from tests.support.pictures import ROOT, SAMPLES, annotation, dice, mask_of
from tests.support.processes import START_SECONDS

CPU = ("--device", "cpu")
RUN = "import sys; from service.commands.main import main; sys.exit(main())"


def piped(*words: object, stdin: bytes = b"", first: str = "") -> "subprocess.CompletedProcess[bytes]":
    """Run ``pranet segment`` after some lines of Python, with standard input."""
    command = [sys.executable, "-c", f"{first}\n{RUN}", "segment", *map(str, words), *CPU]
    return subprocess.run(command, cwd=ROOT, input=stdin, capture_output=True, check=False, timeout=START_SECONDS)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return a folder of a polyp, a black picture, and one that is damaged."""
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(SAMPLES[0], folder / "a.jpg")
    Image.new("RGB", (320, 240)).save(folder / "b.png")
    (folder / "c.jpg").write_bytes(SAMPLES[0].read_bytes()[:4000])
    return folder


def test_a_picture_goes_through_a_pipe() -> None:
    done = piped("-", "-o", "-", stdin=SAMPLES[0].read_bytes())
    assert done.returncode == 0, done.stderr
    assert dice(mask_of(done.stdout), annotation(SAMPLES[0])) > 0.9
    assert b"pranet: 1 picture, 1 with a polyp, 0 failed" in done.stderr


@needs_dicom
@pytest.mark.long
def test_dicom_and_video_go_through_a_pipe_too(tmp_path: Path) -> None:
    picture = Image.open(SAMPLES[0]).convert("RGB").resize((320, 240))
    done = piped("-", "-o", "-", "--output", "json", stdin=written(dicom([picture])))
    assert done.returncode == 0, done.stderr
    assert (json.loads(done.stdout)["width"], len(json.loads(done.stdout)["polyps"])) == (320, 1)
    done = piped("-", "-o", "-", stdin=written(dicom([picture] * 2)))
    assert (done.returncode, b"2 frames, and standard output takes one" in done.stderr) == (1, True)
    clip, out = videos.write(tmp_path / "clip.mp4", [Image.new("RGB", (320, 240)), picture]), tmp_path / "overlay.mp4"
    done = piped("-", "-o", out, "--csv", "-", stdin=clip.read_bytes())
    assert done.returncode == 0, done.stderr
    assert len(videos.read(out)[0]) == 2
    rows = list(csv.DictReader(done.stdout.decode().splitlines()))
    assert [(row["source"], row["frame"], row["polyps"]) for row in rows] == [("-", "0", "0"), ("-", "1", "1")]


def test_every_picture_gets_a_row_and_the_end_says_how_many(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, table = tmp_path / "out", tmp_path / "rows.csv"
    assert main(["segment", str(pictures), "-o", str(out), "--csv", str(table), "--jsonl", "-", *CPU]) == 1
    told = capsys.readouterr()
    lines = {Path(line["source"]).name: line for line in map(json.loads, told.out.splitlines())}
    assert sorted(lines) == ["a.jpg", "b.png", "c.jpg"]
    mask = mask_of((out / "a.jpg.png").read_bytes())
    assert lines["a.jpg"]["polyps"] == 1
    assert lines["a.jpg"]["area"] == pytest.approx((mask > 0).mean(), abs=1e-6)
    assert 0.9 < lines["a.jpg"]["presence"] <= 1
    assert lines["a.jpg"]["milliseconds"] > 0
    assert (lines["b.png"]["polyps"], lines["b.png"]["area"], lines["b.png"]["error"]) == (0, 0, None)
    assert (lines["c.jpg"]["polyps"], "damaged" in lines["c.jpg"]["error"]) == (None, True)
    assert "pranet: 3 pictures, 1 with a polyp, 1 failed" in told.err
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [{**row, "source": ""} for row in rows] == [
        {name: "" if value is None else str(value) for name, value in lines[Path(row["source"]).name].items()}
        | {"source": ""}
        for row in rows
    ]


@pytest.mark.parametrize("output", ["mask", "probability", "overlay", "json"])
def test_rows_do_not_depend_on_what_is_written(
    output: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["segment", str(pictures / "a.jpg"), "-o", str(tmp_path / "out"), "--output", output, "--jsonl", "-"]
    assert main([*words, *CPU]) == 0
    (row,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (row["polyps"], row["area"]) == (1, pytest.approx(annotation(SAMPLES[0]).mean(), rel=0.2))


def test_a_list_keeps_the_folders_of_its_files(tmp_path: Path) -> None:
    files = [tmp_path / "x" / "1.jpg", tmp_path / "y" / "1.jpg"]
    for file in files:
        file.parent.mkdir()
        file.touch()
    listing = tmp_path / "list"
    for separator in ("\n", "\0"):
        listing.write_text(separator.join([*map(str, files), ""]))
        listed = inputs.listed_in(listing)
        assert listed == files
        targets = [job.target for job in plan(listed, tmp_path / "out", ".png", set(listed))]
        assert targets == [tmp_path / "out" / f"{str(file)[1:]}.png" for file in files]
    assert inputs.name_in_tree(Path("../a/b.png")) == Path("a/b.png")


def test_files_are_listed_on_standard_input(pictures: Path, tmp_path: Path) -> None:
    done = piped("--from", "-", "-o", tmp_path / "out", stdin=f"{pictures / 'a.jpg'}\n".encode())
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / f"{str(pictures)[1:]}" / "a.jpg.png").exists()


REFUSED = {
    ("-", "-", "-o", "out"): "give - once",
    ("-", "--from", "-", "-o", "out"): "give - once",
    ("a.jpg", "-o", "-", "--csv", "-"): "can be -, standard output",
    ("a.jpg", "b.png", "-o", "-"): "--out - takes one picture",
    ("a.jpg", "--from", "empty", "-o", "out"): "lists no file",
    ("-o", "out"): "no picture found",
    ("v.mp4", "-o", "-"): "--out - takes one picture, not a video",
    ("a.jpg", "-o", "seg.dcm", "--csv", "rows"): "have no rows for a DICOM Segmentation",
    ("a.jpg", "-o", "out", "--csv", "rows", "--jsonl", "rows"): "name the same file",
    ("a.jpg", "-o", "out", "--csv", "a.jpg"): "--csv a.jpg is the input",
    ("--from", "list", "-o", "out", "--jsonl", "list"): "--jsonl list is the input",
    ("a.jpg", "-o", "out", "--jsonl", "empty"): "--jsonl empty exists; give another path, or --overwrite",
}


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_what_does_not_fit_together_is_said(
    words: tuple[str, ...], pictures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("empty", "v.mp4"):
        (pictures / name).touch()
    (pictures / "list").write_text("a.jpg\n")
    monkeypatch.chdir(pictures)
    assert main(["segment", *words]) == 2
    assert REFUSED[words] in capsys.readouterr().err
    assert not (pictures / "out").exists()


def test_an_empty_standard_input_is_said() -> None:
    done = piped("-", "-o", "-")
    assert (done.returncode, b"standard input is empty" in done.stderr) == (2, True)


KILLED_AT_THE_THIRD = """
import itertools, os, signal

replace, calls = os.replace, itertools.count(1)
os.replace = lambda a, b: os.kill(os.getpid(), signal.SIGKILL) if next(calls) == 3 else replace(a, b)
"""


def outputs(folder: Path) -> Iterator[tuple[str, int]]:
    for file in sorted(folder.glob("[!.]*")):
        yield file.name, file.stat().st_mtime_ns


def test_a_killed_run_is_gone_on_with(tmp_path: Path) -> None:
    folder, out, table = tmp_path / "in", tmp_path / "out", tmp_path / "rows.csv"
    folder.mkdir()
    for number in range(6):
        Image.new("RGB", (64, 48), (number, 0, 0)).save(folder / f"{number}.png")
    words = (folder, "-o", out, "--csv", table, "--max-batch-size", 1)
    killed = piped(*words, first=KILLED_AT_THE_THIRD)
    assert killed.returncode == -signal.SIGKILL
    done = dict(outputs(out))
    assert len(done) == 2
    with table.open("a") as rows:
        rows.write("half a r")  # a kill in the middle of a row
    again = piped(*words, "--skip-existing")
    assert again.returncode == 0, again.stderr
    assert b"4 pictures, 0 with a polyp, 0 failed, 2 skipped" in again.stderr
    assert done.items() <= dict(outputs(out)).items()  # not written again
    assert [name for name, _ in outputs(out)] == [f"{number}.png.png" for number in range(6)]
    assert not list(out.glob(".*"))
    sources = [row["source"] for row in csv.DictReader(table.read_text().splitlines())]
    assert len(sources) == len(set(sources))
    assert set(sources) <= {str(folder / f"{number}.png") for number in range(6)}
    assert {f"{Path(source).name}.png" for source in sources} >= dict(outputs(out)).keys() - done.keys()
