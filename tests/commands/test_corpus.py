"""``tools/corpus.py`` finds what the service reads otherwise than other readers."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.patching import Patches
from tests.support.pictures import SAMPLES, encoded
from tools import corpus

SAMPLE = Image.open(SAMPLES[0]).convert("RGB").reduce(8)


def test_readers_that_agree_leave_nothing_to_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, data in {
        "a.jpg": encoded(SAMPLE, "JPEG", exif=exif),
        "b.png": encoded(SAMPLE.convert("RGBA")),
        "c.tif": encoded(SAMPLE, "TIFF"),
        "d.txt": b"no picture",
        "e.png": encoded(SAMPLE)[:200],  # nobody reads it
    }.items():
        (tmp_path / name).write_bytes(data)
    assert corpus.main(tmp_path) == 0
    assert "4 files compared with OpenCV, Pillow" in (said := capsys.readouterr().out)
    assert "0 in the table; 1 of other formats" in said


def test_what_is_refused_or_shown_otherwise_has_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2):
        data = encoded(SAMPLE, "WEBP", save_all=True, append_images=[SAMPLE.rotate(90)], lossless=True)
        (tmp_path / f"moving-{number}.webp").write_bytes(data)
    assert corpus.main(tmp_path) == 1
    said = capsys.readouterr().out
    assert "| 2 | moving-0.webp | refused: a WEBP file with more than one picture is not supported" in said
    assert "2 files compared" in said


def test_other_pixels_than_two_readers_have_are_told() -> None:
    white = np.full((SAMPLE.height, SAMPLE.width, 3), 255, np.uint8)
    readers = {"one": lambda _: white, "other": lambda _: white, "third": lambda _: white - np.uint8(9)}
    assert corpus.compare(encoded(SAMPLE), "a", readers) == ("a", "shows what nobody else shows", "one, other")
    assert corpus.compare(encoded(Image.fromarray(white - np.uint8(9))), "b", readers).seen == "shows what third shows"
    assert corpus.compare(encoded(Image.fromarray(white)), "c", readers) is None


def test_a_fault_of_the_reader_has_a_row_and_ends_nothing(patched: Patches) -> None:
    patched(corpus, "opened", _fault)
    assert corpus.compare(encoded(SAMPLE), "a", {}) == ("a", "fails: RuntimeError('a fault')", "")


def _fault(data: bytes, max_pixels: int) -> None:
    raise RuntimeError("a fault")
