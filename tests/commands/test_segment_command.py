"""``pranet segment``: what it writes, and what it says when it cannot."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.commands.segment import NothingToDo, plan
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
    assert sorted(jobs.values()) == [tmp_path / "out/a.png", tmp_path / "out/deep/er/b.png"]


def test_two_pictures_of_one_stem_are_both_written(tmp_path: Path) -> None:
    sources = [touch(tmp_path / "x.jpg"), touch(tmp_path / "x.png")]
    assert sorted(plan(sources, tmp_path, ".png").values()) == [tmp_path / "x.png", tmp_path / "x.png.png"]


def test_pictures_that_would_overwrite_each_other_are_refused(tmp_path: Path) -> None:
    sources = [touch(tmp_path / folder / "x.jpg") for folder in ("a", "b", "c")]
    with pytest.raises(NothingToDo, match="different folders"):
        plan(sources, tmp_path / "out", ".png")


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
    answer = json.loads((tmp_path / "out" / "polyp-1.json").read_text())
    assert (answer["width"], answer["height"]) == pixels(SAMPLES / "polyp-1.jpg").shape[1::-1]
    assert answer["polyps"][0]["mean_probability"] > 0.9
    assert not (tmp_path / "out" / "broken.json").exists()


def test_its_masks_agree_with_the_annotations(tmp_path: Path) -> None:
    samples = sorted(SAMPLES.glob("polyp-*.jpg"))
    done = pranet("segment", *samples, "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    for sample in samples:
        mask = pixels(tmp_path / f"{sample.stem}.png") > 0
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
