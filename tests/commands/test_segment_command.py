"""``pranet segment``: what it writes, and what it says when it cannot."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.commands.jobs import NothingToDo, plan
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
    with pytest.raises(NothingToDo, match=r"a/x\.jpg and .*b/x\.jpg would both be written to .*out/x\.jpg\.png"):
        plan(sources, tmp_path / "out", ".png")


def test_a_picture_that_is_named_twice_is_done_once(tmp_path: Path) -> None:
    picture = touch(tmp_path / "in" / "x.jpg")
    assert len(plan([picture, tmp_path / "in", picture], tmp_path / "out", ".png")) == 1


def test_a_run_never_takes_its_own_outputs_for_inputs(tmp_path: Path) -> None:
    for name in ("x.jpg", "masks/x.jpg.png", ".x.jpg.draft.png", ".hidden/y.jpg"):
        touch(tmp_path / name)
    assert [job.source for job in plan([tmp_path], tmp_path / "masks", ".png")] == [tmp_path / "x.jpg"]


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
    assert "1 of 3 have their output already" in again.stderr
    assert "2 of 2 segmented" in again.stderr
    assert done.read_bytes() == b""
    assert pranet("segment", pictures, "-o", tmp_path / "out", "--overwrite").returncode == 0
    assert done.stat().st_size > 0


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(NothingToDo, match=r"gone\.jpg does not exist"):
        plan([tmp_path / "gone.jpg"], tmp_path, ".png")


def test_it_segments_files_and_reports_those_it_could_not(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(SAMPLES / "polyp-1.jpg", folder)
    (folder / "broken.jpg").write_bytes((SAMPLES / "polyp-2.jpg").read_bytes()[:4000])
    done = pranet("segment", folder, "-o", tmp_path / "out", "--output", "json")
    assert done.returncode == 1
    assert "broken.jpg" in done.stderr
    assert f"1 of 2 segmented into {tmp_path / 'out'}" in done.stderr
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
from service import runtime
from service.commands import main, segment
from tests.support.predictors import RedPredictor

segment.load_predictor = lambda settings: RedPredictor(lambda frames: threading.Event().wait())
runtime._hang_seconds = lambda settings: 0.1
sys.exit(main.main(["segment", *sys.argv[1:]]))
"""


def test_a_device_that_hangs_does_not_keep_the_command_from_ending(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HANGING, SAMPLES / "polyp-1.jpg", "-o", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=START_SECONDS)
    assert done.returncode == 1
    assert "0 of 1 segmented" in done.stderr
