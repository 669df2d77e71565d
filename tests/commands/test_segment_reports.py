"""What the rows of ``pranet segment --overwrite`` tell, and what they tell if the run ends early."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from PIL import Image

from model.errors import TargetError
from model.targets import Targets
from service.commands.main import main
from service.commands.segment import session
from service.commands.segment.report import Report
from service.commands.segment.rows import BYTE_ORDER_MARK, HEADS, Row
from service.frames.codec import read_mask
from tests.support import videos
from tests.support.patching import Patches
from tests.support.pictures import ROOT, encoded, red_box
from tests.support.predictors import RedPredictor

COUNT = 8  # of pictures, or frames of a video
OLD, NEW = 1, 2  # polyps of a row
FLAGS = ("--csv", "--jsonl")


@pytest.fixture(params=FLAGS)
def flag(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows"


def report(flag: str, path: Path, *, at_once: bool = False, overwrite: bool = True) -> Report:
    places = path if flag == "--jsonl" else None, path if flag == "--csv" else None
    targets = Targets((), Namespace(overwrite=overwrite, skip_existing=not overwrite))
    return Report(*places, targets, lambda *_: False, at_once=at_once)


def made(flag: str, path: Path, *rows: Row) -> str:
    with report(flag, path) as written:
        for row in rows:
            written.add(row)
    return path.read_text()


def found(flag: str, path: Path) -> list[tuple[str, str]]:
    """Return source and polyps of each row."""
    if flag == "--jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    else:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    return [(row["source"], str(row["polyps"])) for row in rows]


def left_early(flag: str, path: Path, error: BaseException, *rows: Row, at_once: bool = False) -> None:
    with pytest.raises(type(error)), report(flag, path, at_once=at_once) as written:  # noqa: PT012
        for row in rows:
            written.add(row)
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), TargetError("full")])
def test_a_run_that_overwrites_and_ends_early_leaves_its_rows_and_the_old_ones_of_the_rest(
    error: BaseException, flag: str, path: Path
) -> None:
    made(flag, path, Row("a.png", polyps=OLD), Row("v.mp4", 0, OLD), Row("v.mp4", 1, OLD), Row("z.png", polyps=OLD))
    left_early(flag, path, error, Row("v.mp4", 1, NEW), Row("a.png", polyps=NEW), Row("new.png", polyps=NEW))
    assert found(flag, path) == [
        ("v.mp4", "1"), ("z.png", "1"), ("v.mp4", "2"), ("a.png", "2"), ("new.png", "2")
    ]  # fmt: skip
    assert os.listdir(path.parent) == [path.name]


def test_a_run_that_overwrites_leaves_its_own_rows_only(flag: str, path: Path) -> None:
    made(flag, path, Row("a.png", polyps=OLD), Row("z.png", polyps=OLD))
    path.write_text(f"{BYTE_ORDER_MARK}{path.read_text()}")
    made(flag, path, Row("a.png", polyps=NEW))
    assert path.read_text() == made(flag, path.with_name("other"), Row("a.png", polyps=NEW))


@pytest.mark.parametrize("overwrite", [True, False])
def test_of_two_rows_that_a_killed_run_left_the_later_one_counts(overwrite: bool, flag: str, path: Path) -> None:
    rows = [Row("a.png", polyps=OLD), Row("z.png", polyps=OLD), Row("a.png", polyps=NEW)]
    head, *lines = made(flag, path, *rows).splitlines(keepends=True)
    half = "b.png,,1" if flag == "--csv" else '{"source": "b.p'
    path.write_text("".join([head, *lines, half]))
    with contextlib.suppress(KeyboardInterrupt), report(flag, path, overwrite=overwrite):
        raise KeyboardInterrupt
    assert found(flag, path) == [("z.png", "1"), ("a.png", "2")]


def test_rows_of_a_run_that_overwrites_are_there_at_once(flag: str, path: Path) -> None:
    made(flag, path, Row("a.png", polyps=OLD))
    with report(flag, path) as written:
        written.add(Row("a.png", polyps=NEW))
        assert found(flag, path) == [("a.png", "1"), ("a.png", "2")]
    assert found(flag, path) == [("a.png", "2")]


def test_rows_of_a_video_that_is_written_at_once_stay_with_it(flag: str, path: Path) -> None:
    before = made(flag, path, Row("v.mp4", 0, OLD))
    left_early(flag, path, KeyboardInterrupt(), Row("v.mp4", 0, NEW), at_once=True)
    assert path.read_text() == before
    with report(flag, path, at_once=True) as written:
        written.add(Row("v.mp4", 0, NEW))
        assert path.read_text() == before
    assert found(flag, path) == [("v.mp4", "2")]


@pytest.mark.parametrize("text", ["a note\n", HEADS["--csv"] + "no row\n", '{"source": 5}\n'])
def test_what_is_no_report_stays_until_it_can_be_replaced(text: str, flag: str, path: Path) -> None:
    path.write_text(text)
    left_early(flag, path, KeyboardInterrupt(), Row("a.png", polyps=NEW))
    assert path.read_text() == text
    made(flag, path, Row("a.png", polyps=NEW))
    assert found(flag, path) == [("a.png", "2")]
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_report_that_another_command_writes_is_refused_as_it_is(overwrite: bool, flag: str, path: Path) -> None:
    with report(flag, path) as written:
        written.add(Row("a.png"))
        before = path.read_text()
        with pytest.raises(TargetError, match="another command is writing"), report(flag, path, overwrite=overwrite):
            pass
        assert path.read_text() == before


STOPPED = """
import asyncio, sys, time
from pathlib import Path
from service.commands import main
from service.commands.segment import session, videos
from tests.support.predictors import RedPredictor

segment_at_once, write, calls, tasks = session._segment_at_once, session.write, [], []

def until_it_is_cancelled():
    while not tasks[0].cancelling() and not tasks[0].done():
        time.sleep(0.01)

def until_the_masks_before_have_their_rows():  # a kill in between would leave one without
    table, before = Path(sys.argv[sys.argv.index("--csv") + 1]), ("0.png,", "1.png,", "v.mp4,0,", "v.mp4,1,")
    while sum(any(name in row for name in before) for row in table.open()) < 4:  # two old and two new ones
        time.sleep(0.01)

def called(frames):
    calls.append(frames)
    if len(calls) > 4:
        until_it_is_cancelled()

def written(flag, path, content):
    if path.name in ("2.png.png", "00000002.png"):
        until_the_masks_before_have_their_rows()
        print("writes", flush=True)
        until_it_is_cancelled()
    write(flag, path, content)

async def begun(*given):
    tasks.append(asyncio.current_task())
    await segment_at_once(*given)

session.load_predictor = lambda settings: RedPredictor(called)
session.write = videos.write = written
session._segment_at_once = begun
sys.exit(main.main(sys.argv[1:]))
"""


def sources(folder: Path, kind: str, *, red: bool) -> list[tuple[str, str]]:
    """Write pictures or a video; return source and frame of the rows to come."""
    folder.mkdir(exist_ok=True)
    shown = [red_box(64, 48, (8, 8, 40, 40)) if red else Image.new("RGB", (64, 48))] * COUNT
    if kind == "video":
        return [(str(videos.write(folder / "v.mp4", shown)), str(number)) for number in range(COUNT)]
    for number, picture in enumerate(shown):
        (folder / f"{number}.png").write_bytes(encoded(picture))
    return [(str(folder / f"{number}.png"), "") for number in range(COUNT)]


def polyps_in(out: Path, source: str, frame: str) -> str:
    """Return how many polyps the mask of a row shows, of one at most."""
    name = Path(source).name
    mask = read_mask((out / (f"{name}.frames/{int(frame):08d}.png" if frame else f"{name}.png")).read_bytes())
    return str(int(mask.any()))


@pytest.mark.parametrize("kind", ["pictures", "video"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_each_mask_has_its_row_after_a_run_that_overwrites_was_ended(
    number: signal.Signals, kind: str, tmp_path: Path, patched: Patches
) -> None:
    patched(session, "load_predictor", lambda settings: RedPredictor())
    folder, out, table = tmp_path / "in", tmp_path / "out", tmp_path / "rows.csv"
    expected = sources(folder, kind, red=True)
    words = ["segment", str(folder), "--out", str(out), "--csv", str(table), "--max-batch-size", "1"]
    assert main(words) == 0
    sources(folder, kind, red=False)
    before = signal.signal(number, signal.SIG_DFL) if number is not signal.SIGKILL else None
    try:  # else the program ignores what ``nohup pytest`` does
        process = subprocess.Popen(
            [sys.executable, "-c", STOPPED, *words, "--overwrite"], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
    finally:
        if before is not None:
            signal.signal(number, before)
    assert process.stdout is not None
    with process.stdout:
        try:
            assert process.stdout.readline() == "writes\n"
            process.send_signal(number)
            assert process.wait(60) == (-number if number is signal.SIGKILL else 128 + number)
        finally:
            process.kill()
    if number is signal.SIGKILL:
        assert main([*words, "--skip-existing"]) == 0
    with table.open(newline="") as file:
        rows = {(row["source"], row["frame"]): row["polyps"] for row in csv.DictReader(file, strict=True)}
    assert sorted(rows) == sorted(expected)
    assert set(rows.values()) == {"0", "1"}
    assert {row: polyps_in(out, *row) for row in rows} == rows
    assert not [each for each in tmp_path.rglob(".*draft*") if each.suffix == ".csv"]
