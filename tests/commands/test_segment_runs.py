"""How ``pranet segment`` uses the data path, and what a run that ends early leaves."""

import threading
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from model.targets import Targets
from service.commands.main import main
from service.commands.segment import session
from service.commands.segment.report import Report, Row
from tests.support.patching import Patches
from tests.support.pictures import encoded, red_box
from tests.support.predictors import RedPredictor

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


def test_an_interrupted_run_that_overwrites_leaves_the_rows_that_were_there(tmp_path: Path) -> None:
    table = tmp_path / "found.csv"
    table.write_text("the rows of a run before\n")
    targets = Targets((), Namespace(overwrite=True))
    with pytest.raises(KeyboardInterrupt), Report(None, table, targets) as report:  # noqa: PT012
        report.add(Row("a.png", polyps=1))
        raise KeyboardInterrupt
    assert table.read_text() == "the rows of a run before\n"
