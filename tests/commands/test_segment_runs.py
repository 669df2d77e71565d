"""How ``pranet segment`` uses the data path, and what a run that ends early leaves."""

import csv
import json
import os
import subprocess
import sys
import threading
import time
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from model.errors import TargetError
from model.targets import Targets
from model.transforms import Pixels
from service.commands.main import main
from service.commands.segment import session
from service.commands.segment.jobs import Drawing, Job
from service.commands.segment.report import Report
from service.commands.segment.rows import Row
from service.commands.segment.videos import Findings
from service.dicom import availability
from tests.support.patching import Patches
from tests.support.pictures import ROOT, encoded, red_box
from tests.support.predictors import RedPredictor
from tests.support.processes import PROGRAM

PICTURES = 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "in"
    made.mkdir()
    for number in range(PICTURES):
        (made / f"{number}.png").write_bytes(encoded(red_box(64, 48, (8, 8, 40, 40))))
    return made


def test_a_short_queue_costs_no_picture(folder: Path, monkeypatch: pytest.MonkeyPatch, patched: Patches) -> None:
    monkeypatch.setenv("PRANET_MAX_QUEUE_SIZE", "1")
    patched(session, "load_predictor", lambda settings: RedPredictor())
    assert main(["segment", str(folder), "-o", str(folder.parent / "out")]) == 0
    assert len(list((folder.parent / "out").iterdir())) == PICTURES


def test_a_first_call_that_compiles_the_network_slowly_costs_no_picture(
    folder: Path, monkeypatch: pytest.MonkeyPatch, patched: Patches
) -> None:
    called = threading.Event()

    def compile_at_first(frames: Pixels) -> None:
        if not called.is_set():
            called.set()
            time.sleep(0.2)

    monkeypatch.setenv("PRANET_REQUEST_TIMEOUT_MS", "1")
    patched("service.runtime", "HANG_SECONDS", 0.01)
    patched(session, "load_predictor", lambda settings: RedPredictor(compile_at_first))
    assert main(["segment", str(folder / "0.png"), "-o", str(folder.parent / "out")]) == 0


@pytest.mark.parametrize("large", [True, False])
def test_large_files_are_held_in_memory_one_by_one(large: bool, folder: Path, patched: Patches) -> None:
    lock, held, most = threading.Lock(), 0, 0
    read = session.read

    def counting(*given: Any) -> bytes:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        time.sleep(0.05)
        with lock:
            held -= 1
        return read(*given)

    patched(session, "load_predictor", lambda settings: RedPredictor())
    patched(session, "read", counting)
    patched(session, "LARGE_BYTES", 0 if large else 10**6)
    assert main(["segment", str(folder), "-o", str(folder.parent / "out")]) == 0
    assert (most == 1) == large


@pytest.mark.parametrize(
    ("findings", "told"),
    [
        (Findings(frames=10), "10 of 10 frames, no polyp found in them"),
        (Findings(frames=8, failed=2), "8 of 10 frames, no polyp found in them"),
        (
            Findings(frames=4, passed=6),
            "4 of 10 frames (6 had their output already), no polyp found in those segmented now",
        ),
        (Findings(failed=10), "0 of 10 frames"),
        (Findings(passed=10), "0 of 10 frames (10 had their output already)"),
        (Findings(frames=4, with_polyp=1, first_seconds=2), "4 of 4 frames, a polyp in 25.0% of them, first at 2.00 s"),
    ],
)
def test_the_summary_of_a_video_says_nothing_about_frames_that_nobody_looked_at(findings: Findings, told: str) -> None:
    assert findings.summary() == told


ROWS = {  # a row of a report by its flag, and what a kill leaves of another
    "--csv": (
        '"a\nb.png",,1,0.5,0.9,12.5,',
        [
            "c.png,,1,0.5,0.9,12",
            '"a\nb.p',
            '"a\n',
            '"a ""b"" ',
            '"a\nb.png",,1,0.',
            'c.png,,,,,,"bad, ve',
        ],
    ),
    "--jsonl": (json.dumps(asdict(Row("a.png", polyps=1))), ['{"source": "c.png", "fra', '{"source": "c']),
}
BEGIN = {"--csv": "source,frame,polyps,area,presence,milliseconds,error\n", "--jsonl": ""}


def row_of(flag: str, source: str) -> str:
    return ROWS[flag][0].replace('"a\nb.png"', source).replace("a.png", source)


def gone_on_with(flag: str, path: Path) -> Report:
    """Return a report in a file that is there already."""
    places = path if flag == "--jsonl" else None, path if flag == "--csv" else None
    return Report(*places, skipping(), lambda source, number: source == "again.png")


def skipping() -> Targets:
    return Targets((), Namespace(overwrite=False, skip_existing=True))


@pytest.mark.parametrize("flag", ROWS)
@pytest.mark.parametrize("line_break", ["", "\n"])
def test_whole_rows_stay_when_a_report_is_gone_on_with(flag: str, line_break: str, tmp_path: Path) -> None:
    path, (row, halves) = tmp_path / "rows", ROWS[flag]
    rows = f"{BEGIN[flag]}{row}\n{row_of(flag, 'other.png')}"
    for half in [""] if not line_break else ["", *halves]:
        path.write_text(f"{rows}{line_break}{half}")
        with gone_on_with(flag, path) as report:
            report.add(Row("new.png"))
        begin, _, new = path.read_text().rpartition("new.png")
        assert begin.startswith(f"{rows}\n")
        assert begin.removeprefix(f"{rows}\n") in ("", '{"source": "')
        assert new.endswith("\n")


@pytest.mark.parametrize("flag", ROWS)
def test_rows_of_what_is_segmented_again_give_way_to_new_ones(flag: str, tmp_path: Path) -> None:
    path, again, (row, _) = tmp_path / "rows", row_of(flag, "again.png"), ROWS[flag]
    other = row_of(flag, "other.png")
    path.write_text(f"{BEGIN[flag]}{again}\n{row}\n{again}\n{other}\n{again}\n")
    with gone_on_with(flag, path):
        assert path.read_text() == f"{BEGIN[flag]}{row}\n{other}\n"


@pytest.mark.parametrize("flag", ROWS)
def test_a_report_with_a_damaged_row_in_its_middle_is_not_gone_on_with(flag: str, tmp_path: Path) -> None:
    path, (row, _) = tmp_path / "rows", ROWS[flag]
    text = f"{BEGIN[flag]}{row}\n{row[:20]}\n{row}\n"
    path.write_text(text)
    line = f"{BEGIN[flag]}{row}\n".count("\n") + 1
    with pytest.raises(TargetError, match=f"has no row in line {line}; delete"), gone_on_with(flag, path):
        pass
    assert path.read_text() == text


@pytest.mark.parametrize(("source", "frame"), [(5, "x"), (5, None), ("a.png", "1"), ("a.png", 1.5), ("a.png", True)])
@pytest.mark.parametrize("line_break", ["", "\n"])
def test_an_object_of_wrong_types_is_no_row(source: object, frame: object, line_break: str, tmp_path: Path) -> None:
    row = ROWS["--jsonl"][0]
    wrong = json.dumps({"source": source, "frame": frame})
    (path := tmp_path / "rows").write_text(text := f"{row}\n{wrong}{line_break}")
    with pytest.raises(TargetError, match="has no row in line 2; delete"), gone_on_with("--jsonl", path):
        pass
    assert path.read_text() == text


GOOD = "a.png,,1,0.5,0.9,12.5,\n"


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (f'{GOOD}"{GOOD}{10**5 * GOOD}', 3),
        (f'{GOOD}"{GOOD}{GOOD}"b ""c"".png",,1,0.5,0.9,12.5,\n{GOOD}', 3),
        (f'{GOOD}"{GOOD}{GOOD.strip()}', 3),
        (f'{GOOD}"{GOOD}', 3),
        (f"{GOOD}c.png,,1\n{GOOD.strip()}", 3),
        (f"{GOOD}c.png,,1\n", 3),
        (f'{GOOD}"a\nb.png",,1\n', 3),
        (f"{GOOD}a,b.png,,1,0.5,0.9,12.5,", 3),
        (f"{10**6 * '0'}.png,,1,0.5,0.9,12.5,\n{GOOD}", 2),
        (f"{GOOD}c.png,,,,,,{10**6 * '0'}\n", 3),
    ],
)
def test_no_row_is_lost_to_a_damaged_one(rows: str, line: int, tmp_path: Path) -> None:
    (path := tmp_path / "rows").write_text(text := f"{BEGIN['--csv']}{rows}")
    with (
        pytest.raises(TargetError, match=f"has no row in line {line}; delete"),
        gone_on_with("--csv", path) as report,
    ):
        report.add(Row("new.png"))
    assert path.read_text() == text


def test_a_quote_within_a_name_is_a_part_of_it(tmp_path: Path) -> None:
    (path := tmp_path / "rows").write_text(text := f'{BEGIN["--csv"]}{GOOD}b"{GOOD}c{GOOD}')
    with gone_on_with("--csv", path):
        assert path.read_text() == text


def test_a_picture_that_failed_has_one_row_after_it_was_segmented_again(folder: Path, patched: Patches) -> None:
    patched(session, "load_predictor", lambda settings: RedPredictor())
    rows, broken = folder.parent / "rows.jsonl", folder / "3.png"
    content = broken.read_bytes()
    broken.write_bytes(content[:40])
    words = ["segment", str(folder), "-o", str(folder.parent / "out"), "--jsonl", str(rows), "--skip-existing"]
    assert main(words) == 1
    broken.write_bytes(content)
    assert main(words) == 0
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    assert len(found) == PICTURES
    assert {row["source"]: row["error"] for row in found} == {str(each): None for each in folder.iterdir()}


def test_a_run_that_cannot_start_leaves_the_report_as_it_was(folder: Path, patched: Patches) -> None:
    patched(session, "load_predictor", lambda settings: RedPredictor())
    rows = folder.parent / "rows.jsonl"
    (folder / "3.png").write_bytes(b"broken")
    words = ["segment", str(folder), "-o", str(folder.parent / "out"), "--jsonl", str(rows), "--skip-existing"]
    assert main(words) == 1
    before = rows.read_text()
    assert before.count('"error": null') == PICTURES - 1
    no_weights = folder.parent / "no.safetensors"
    program = subprocess.run([*PROGRAM, *words, "--weights", str(no_weights)], cwd=ROOT, capture_output=True, text=True)
    assert program.returncode == 2
    assert str(no_weights) in program.stderr
    assert rows.read_text() == before


@pytest.mark.parametrize(
    ("name", "told"), [("v.mp4", "video needs PyAV"), ("study.dcm", "DICOM support is not installed")]
)
def test_a_run_that_can_read_nothing_without_an_extra_says_so_before_the_weights_are_loaded(
    name: str,
    told: str,
    tmp_path: Path,
    patched: Patches,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    patched(availability, "PACKAGES", ("no_such_package",))
    (tmp_path / name).touch()
    words = ["segment", str(tmp_path / name), "-o", str(tmp_path / "out"), "--weights", str(tmp_path / "none")]
    assert main(words) == 2
    assert told in capsys.readouterr().err


def test_no_file_of_a_report_is_changed_if_one_of_them_is_refused(tmp_path: Path) -> None:
    texts = {}
    for flag, (row, _) in ROWS.items():
        damaged = "damaged\n" * (flag == "--csv")
        texts[tmp_path / flag] = f"{BEGIN[flag]}{row_of(flag, 'again.png')}\n{damaged}{row}\n"
    for path, text in texts.items():
        path.write_text(text)
    with pytest.raises(TargetError, match="has no row in line 3"):
        Report(
            tmp_path / "--jsonl", tmp_path / "--csv", skipping(), lambda source, number: source == "again.png"
        ).__enter__()
    assert {path: path.read_text() for path in texts} == texts


def test_a_name_with_a_carriage_return_is_a_part_of_its_row(tmp_path: Path) -> None:
    path, names = tmp_path / "rows", ["a\rb.png", "a\r\nb.png", "c.png"]
    for name in names:
        with gone_on_with("--csv", path) as report:
            report.add(Row(name))
    with path.open(newline="") as file:
        assert [row["source"] for row in csv.DictReader(file, strict=True)] == names
    assert path.read_bytes().endswith(b"\nc.png,,,,,,\n")


def test_a_picture_has_one_row_however_the_path_of_its_folder_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, patched: Patches
) -> None:
    patched(session, "load_predictor", lambda settings: RedPredictor())
    monkeypatch.chdir(folder.parent)
    (folder / "3.png").write_bytes(b"broken")
    (folder / "link.png").symlink_to(folder / "4.png")
    (folder.parent / "alias").symlink_to(folder)
    for path in ("in", str(folder), "./in", "alias"):
        (Path("out") / "link.png.png").unlink(missing_ok=True)
        assert main(["segment", path, "-o", "out", "--jsonl", "rows", "--skip-existing"]) == 1
    sources = [json.loads(line)["source"] for line in Path("rows").read_text().splitlines()]
    assert sorted(Path(each).name for each in sources) == sorted(each.name for each in folder.iterdir())
    assert f"in{os.sep}4.png" in sources
    assert f"alias{os.sep}3.png" in sources


def test_of_a_video_only_the_frames_without_a_mask_are_segmented_again(tmp_path: Path) -> None:
    targets = Targets((), Namespace(overwrite=False, skip_existing=True))
    job = Job(tmp_path / "v.mp4", tmp_path / "v.mp4.png")
    job.folder.mkdir()
    job.frame(1).touch()
    assert [job.segments(number, targets) for number in (None, 0, 1)] == [True, True, False]
    to_folder, to_video = Drawing(job.source, None, job.folder), Drawing(job.source, tmp_path / "o.mp4", job.folder)
    assert [to_folder.segments(number, targets) for number in (None, 0, 1)] == [True, True, False]
    assert [to_video.segments(number, targets) for number in (None, 0, 1)] == [True, True, True]


@pytest.mark.parametrize("flag", ROWS)
def test_a_report_that_holds_its_first_line_only_keeps_it(flag: str, tmp_path: Path) -> None:
    path, line = tmp_path / "rows", (BEGIN[flag] or ROWS[flag][0]).strip()
    path.write_text(line)
    with gone_on_with(flag, path):
        assert path.read_text() == f"{line}\n"


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize(
    ("flag", "half"), [("--csv", "source,fra"), ("--csv", BEGIN["--csv"][:-2]), ("--csv", ""), ("--jsonl", '{"sou')]
)
def test_a_report_that_holds_a_part_of_its_first_line_only_begins_anew(
    flag: str, half: str, mark: str, tmp_path: Path
) -> None:
    (path := tmp_path / "rows").write_text(f"{mark}{half}", encoding="utf-8")
    with gone_on_with(flag, path):
        assert path.read_text() == BEGIN[flag]


@pytest.mark.parametrize("flag", ROWS)
@pytest.mark.parametrize("line", ["\n", "\r\n", "\n \n"])
def test_blank_lines_at_the_end_of_a_report_are_left_out(flag: str, line: str, tmp_path: Path) -> None:
    path, (row, _) = tmp_path / "rows", ROWS[flag]
    path.write_bytes(f"{BEGIN[flag]}{row}\n{line}".encode())
    with gone_on_with(flag, path):
        assert path.read_text() == f"{BEGIN[flag]}{row}\n"


def test_a_table_that_excel_saved_is_gone_on_with(tmp_path: Path) -> None:
    saved = f"\ufeff{BEGIN['--csv']}a.png,,1,0.5,0.9,12.5,\n".replace("\n", "\r\n").encode()
    (path := tmp_path / "rows").write_bytes(saved)
    with gone_on_with("--csv", path) as report:
        report.add(Row("new.png"))
    assert path.read_bytes() == saved + b"new.png,,,,,,\n"


@pytest.mark.parametrize("flag", ROWS)
@pytest.mark.parametrize("text", ["name,age\nMüller,63\n", "a note without a line break", "[]"])
def test_a_file_of_something_else_is_not_gone_on_with(flag: str, text: str, tmp_path: Path) -> None:
    (path := tmp_path / "rows").write_text(text)
    with pytest.raises(TargetError, match=f"{flag} .*rows is no report"), gone_on_with(flag, path):
        pass
    assert path.read_text() == text


@pytest.mark.parametrize("flag", ROWS)
def test_a_device_or_a_pipe_is_gone_on_with(flag: str) -> None:
    read, written = os.pipe()
    for path in (Path(os.devnull), Path(f"/dev/fd/{written}")):
        with gone_on_with(flag, path) as report:
            report.add(Row("new.png"))
    os.close(written)
    with os.fdopen(read) as lines:
        assert "new.png" in lines.read()
