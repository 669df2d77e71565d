"""``pranet segment``: what it writes, and what it says when it cannot."""

import json
import os
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.commands.main import main
from service.commands.segment.jobs import NothingToDo, plan
from tests.support import videos
from tests.support.pictures import ROOT
from tests.support.processes import START_SECONDS, pranet

SAMPLES = ROOT / "service" / "samples"


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_a_folder_keeps_its_tree_and_other_files_are_left_alone(tmp_path: Path) -> None:
    for name in ("a.jpg", "deep/er/b.PNG", "notes.txt"):
        touch(tmp_path / "in" / name)
    jobs = plan([tmp_path / "in"], tmp_path / "out", ".png")
    assert [job.target for job in jobs] == [tmp_path / "out/a.jpg.png", tmp_path / "out/deep/er/b.PNG.png"]


def test_the_name_of_an_output_depends_on_its_own_picture_only(tmp_path: Path) -> None:
    sources = [touch(tmp_path / "in" / name) for name in ("x.png", "x.jpg", "x.mp4", "x.dcm")]
    alone = [plan([source], tmp_path, ".png")[0].target for source in sources]
    assert [job.target for job in plan(sources, tmp_path, ".png")] == alone
    assert alone == [tmp_path / f"{source.name}.png" for source in sources]


def test_pictures_that_would_overwrite_each_other_are_refused(tmp_path: Path) -> None:
    sources = [touch(tmp_path / folder / "x.jpg") for folder in ("a", "b")]
    with pytest.raises(
        NothingToDo,
        match=r"a/x\.jpg and .*b/x\.jpg would both be written to .*out/x\.jpg\.png; give each its own --out",
    ):
        plan(sources, tmp_path / "out", ".png")


def test_a_picture_that_is_named_twice_is_done_once(tmp_path: Path) -> None:
    picture = touch(tmp_path / "in" / "x.jpg")
    assert len(plan([picture, tmp_path / "in", picture], tmp_path / "out", ".png")) == 1


def test_a_run_never_takes_its_own_outputs_for_inputs(tmp_path: Path) -> None:
    for name in ("x.jpg", "masks/x.jpg.png", ".x.jpg.draft.png", ".hidden/y.jpg"):
        touch(tmp_path / name)
    assert [job.source for job in plan([tmp_path], tmp_path / "masks", ".png")] == [tmp_path / "x.jpg"]


@pytest.mark.long
@pytest.mark.slow
def test_a_long_run_is_gone_on_with(tmp_path: Path) -> None:
    pictures = tmp_path / "in"
    pictures.mkdir()
    for sample in SAMPLES.glob("polyp-*.jpg"):
        shutil.copy(sample, pictures)
    done = touch(tmp_path / "out" / "polyp-2.jpg.png")
    assert pranet("segment", pictures, "-o", tmp_path / "out").returncode == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [done.name]
    again = pranet("segment", pictures, "-o", tmp_path / "out", "--skip-existing")
    assert again.returncode == 0, again.stderr
    assert "2 pictures, 2 with a polyp, 0 failed, 1 skipped (output exists)" in again.stderr
    assert done.read_bytes() == b""
    assert pranet("segment", pictures, "-o", tmp_path / "out", "--overwrite").returncode == 0
    assert done.stat().st_size > 0


def test_what_is_left_out_of_a_folder_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.jpg", "b.gif", "deep/c.GIF", "deep/notes", ".hidden", "masks/a.jpg.png", "masks/d.gif"):
        touch(tmp_path / name)
    command = ["segment", tmp_path, tmp_path / "a.jpg", "--out", tmp_path / "masks", "--skip-existing"]
    main([*map(str, command), "--csv", str(tmp_path / "rows.csv")])
    told = "pranet: left out, as no pictures, videos or DICOM objects: 2 .gif, 1 without a suffix"
    assert capsys.readouterr().err.splitlines()[-2] == told
    main(["segment", str(tmp_path / "a.jpg"), "--out", str(tmp_path / "masks"), "--skip-existing"])
    assert "left out" not in capsys.readouterr().err


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(NothingToDo, match=r"gone\.jpg does not exist"):
        plan([tmp_path / "gone.jpg"], tmp_path, ".png")


def test_it_segments_files_and_reports_those_it_could_not(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(SAMPLES / "polyp-1.jpg", folder)
    (folder / "broken.jpg").write_bytes((SAMPLES / "polyp-2.jpg").read_bytes()[:4000])
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    done = pranet("segment", folder, "-o", tmp_path / "out", "--output", "json")
    assert done.returncode == 1
    assert "broken.jpg" in done.stderr
    assert "gone.jpg: cannot be read: No such file or directory" in done.stderr
    assert "3 pictures, 1 with a polyp, 2 failed" in done.stderr
    answer = json.loads((tmp_path / "out" / "polyp-1.jpg.json").read_text())
    assert (answer["width"], answer["height"]) == pixels(SAMPLES / "polyp-1.jpg").shape[1::-1]
    assert answer["polyps"][0]["mean_probability"] > 0.9
    assert not (tmp_path / "out" / "broken.jpg.json").exists()


def test_its_masks_agree_with_the_annotations(tmp_path: Path) -> None:
    samples = sorted(SAMPLES.glob("polyp-*.jpg"))
    done = pranet("segment", *samples, "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    for sample in samples:
        mask = pixels(tmp_path / f"{sample.name}.png") > 0
        truth = pixels(ROOT / "tests" / "data" / f"{sample.stem}-mask.png")
        assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.9


def test_an_empty_folder_is_said_to_be_empty(tmp_path: Path) -> None:
    done = pranet("segment", tmp_path, "-o", tmp_path / "out")
    assert done.returncode == 2
    assert "no picture found" in done.stderr


HANGING = """
import sys, threading
from service.commands import main
from service.commands.segment import session
from tests.support.predictors import RedPredictor

session.load_predictor = lambda settings: RedPredictor(lambda frames: threading.Event().wait())
session.MOST_HANG_SECONDS = 0.1
sys.exit(main.main(["segment", *sys.argv[1:]]))
"""


def test_a_device_that_hangs_does_not_keep_the_command_from_ending(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HANGING, SAMPLES / "polyp-1.jpg", "-o", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=START_SECONDS)
    assert done.returncode == 1
    assert "1 picture, 0 with a polyp, 1 failed" in done.stderr


def film(path: Path, count: int = 10) -> Path:
    """Write a video: no polyp in its first 0.4 s, then a sample frame."""
    with Image.open(SAMPLES / "polyp-1.jpg") as sample:
        seen = sample.convert("RGB").resize((320, 240))
    empty = Image.new("RGB", seen.size)
    return videos.write(path, [empty if number < 4 else seen for number in range(count)], time_base=Fraction(1, 10))


def test_a_video_becomes_one_with_outlines_and_its_masks_go_beside_it(tmp_path: Path) -> None:
    clip, out, masks = film(tmp_path / "clip.mp4"), tmp_path / "overlay.mp4", tmp_path / "masks"
    done = pranet("segment", clip, "-o", out, "--save-masks", masks)
    assert done.returncode == 0, done.stderr
    assert "10 of 10 frames, a polyp in 60.0% of them, first at 0.40 s" in done.stderr
    frames, times, facts = videos.read(out)
    assert times == pytest.approx([number / 10 for number in range(10)])
    assert facts["kinds"] == ["video"]
    written = sorted(masks.iterdir())
    assert [each.name for each in written] == [f"{number:08d}.png" for number in range(10)]
    inside = pixels(written[-1]) > 0
    originals = videos.read(clip)[0]
    assert frames[-1][inside][:, 1].mean() > originals[-1][inside][:, 1].mean() + 20  # tinted green


def test_masks_of_a_video_are_lines_of_json_too(tmp_path: Path) -> None:
    lines = tmp_path / "masks.ndjson"
    done = pranet("segment", film(tmp_path / "clip.mp4"), "-o", tmp_path / "overlay.mp4", "--save-masks", lines)
    assert done.returncode == 0, done.stderr
    read = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [(line["frame_id"], line["seconds"], line["outcome"]) for line in read] == [
        (number, number / 10, "answered") for number in range(10)
    ]
    assert [bool(line["polyps"]) for line in read] == [False] * 4 + [True] * 6
    assert sum(read[-1]["rle"]["counts"]) == 320 * 240


def test_a_damaged_video_is_named_and_the_rest_is_done(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        film(folder / f"{number}.mp4", count=6)
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / "slides.wmv").write_bytes(b"")
    shutil.copy(SAMPLES / "polyp-1.jpg", folder)
    done = pranet("segment", folder, "-o", tmp_path / "out", PRANET_REQUEST_TIMEOUT_MS="1")
    assert done.returncode == 1
    assert f"{folder / 'broken.mp4'}: " in done.stderr
    assert f"{folder / 'slides.wmv'}: " in done.stderr
    assert "21 pictures, 7 with a polyp, 2 failed" in done.stderr, done.stderr
    assert (tmp_path / "out" / "polyp-1.jpg.png").exists()
    frames = [tmp_path / "out" / f"{number}.mp4.frames" for number in range(3)]
    assert [len(list(folder.iterdir())) for folder in frames] == [6, 6, 6]


@pytest.mark.parametrize("arguments", [["a.mp4", "b.mp4"], ["a.mp4", "--output", "json"], ["."]])
def test_a_video_is_written_of_one_video_only(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.mp4", "b.mp4"):
        touch(tmp_path / name)
    paths = [str(tmp_path / each) if each.endswith((".mp4", ".")) else each for each in arguments]
    assert main(["segment", *paths, "-o", str(tmp_path / "out.mp4")]) == 2
    assert "give one video file, and no --output" in capsys.readouterr().err


CPU = ("--device", "cpu")


@pytest.mark.parametrize("form", ["files", "lines"])
def test_the_json_of_a_video_says_what_is_wrong_with_each_frame(tmp_path: Path, form: str) -> None:
    clip, out = film(tmp_path / "clip.mp4", count=6), tmp_path / "out"
    if form == "files":
        assert main(["segment", str(clip), "-o", str(out), "--output", "json", *CPU]) == 0
        found = [json.loads(file.read_text()) for file in sorted((out / "clip.mp4.frames").iterdir())]
    else:
        lines = tmp_path / "masks.ndjson"
        assert main(["segment", str(clip), "-o", str(tmp_path / "o.mp4"), "--save-masks", str(lines), *CPU]) == 0
        found = [json.loads(line) for line in lines.read_text().splitlines()]
    assert ["black" in each["quality"] for each in found] == [True] * 4 + [False] * 2


def test_an_output_that_cannot_be_written_is_not_blamed_on_the_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, out = tmp_path / "in", tmp_path / "out"
    (pictures / "deep").mkdir(parents=True)
    for number in range(6):
        shutil.copy(SAMPLES / "polyp-1.jpg", pictures / "deep" / f"{number}.jpg")
    touch(out / "deep")  # in the way of the folder
    assert main(["segment", str(pictures), "-o", str(out), *CPU]) == 2
    told = capsys.readouterr().err
    assert "cannot be written" in told
    assert ".jpg:" not in told


def test_the_frames_of_a_video_that_are_there_are_passed_by(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip, frames = film(tmp_path / "clip.mp4", count=6), tmp_path / "out" / "clip.mp4.frames"
    there = [touch(frames / f"{number:08d}.png") for number in (0, 4)]
    words = ["segment", str(clip), "-o", str(tmp_path / "out"), *CPU]
    assert main(words) == 2
    assert "00000000.png exists" in capsys.readouterr().err
    assert main([*words, "--skip-existing"]) == 0
    told = capsys.readouterr().err
    assert "4 of 6 frames (2 had their output already)" in told
    assert "a polyp in 25.0% of those segmented now, first at 0.50 s" in told
    assert "4 pictures, 1 with a polyp, 0 failed, 2 skipped" in told
    assert [file.read_bytes() for file in there] == [b"", b""]
    assert len(list(frames.iterdir())) == 6


@pytest.mark.long
def test_what_a_video_has_is_passed_by_and_what_it_lacks_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, out, masks = film(tmp_path / "clip.mp4", count=6), touch(tmp_path / "out.mp4"), tmp_path / "masks"
    words = ["segment", str(clip), "-o", str(out), "--save-masks", str(masks), "--skip-existing", *CPU]
    assert main(words) == 0
    assert len(list(masks.iterdir())) == 6
    assert main(words) == 0
    assert "0 pictures, 0 with a polyp, 0 failed, 6 skipped" in capsys.readouterr().err
    for number in (1, 5):  # as a run that was killed leaves them
        (masks / f"{number:08d}.png").unlink()
    assert main(words) == 0
    assert "2 pictures, 1 with a polyp, 0 failed, 4 skipped" in capsys.readouterr().err
    assert len(list(masks.iterdir())) == 6
    out.unlink()
    kept = {file: file.stat().st_mtime_ns for file in masks.iterdir()}
    assert main(words) == 0
    assert len(videos.read(out)[0]) == 6
    assert {file: file.stat().st_mtime_ns for file in masks.iterdir()} == kept


def test_a_file_name_of_other_bytes_than_text_costs_no_other_picture(tmp_path: Path) -> None:
    """As shares of older systems have them."""
    folder, table = tmp_path / "in", tmp_path / "findings.csv"
    folder.mkdir()
    names = [os.fsdecode(b"h\xf4pital.jpg"), "plain.jpg"]
    for name in names:
        shutil.copy(SAMPLES / "polyp-1.jpg", folder / name)
    for output in ("mask", "json"):
        masks = tmp_path / output
        given = ["-o", masks, "--output", output, "--csv", table, "--overwrite"]
        done = pranet("segment", folder, *given)
        assert done.returncode == 0, done.stderr
        assert len(list(masks.iterdir())) == 2
    assert table.read_bytes().count(b"h\xf4pital.jpg") == 1


def test_a_reader_that_ends_early_ends_the_command_in_one_line(tmp_path: Path) -> None:
    command = f"{sys.executable} -m service.commands.main segment {SAMPLES} -o {tmp_path / 'm'} --jsonl - | head -c 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "pranet: what reads standard output has ended, so this command ends, too"
    assert "Traceback" not in done.stderr
