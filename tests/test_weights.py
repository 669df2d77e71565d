"""``pranet weights``: inspect, convert and compare."""

from pathlib import Path

import pytest

from pictures import DATA, SAMPLES
from service.cli import main


def test_a_converted_file_keeps_its_origin_and_takes_its_new_name(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "half.safetensors"
    assert main(["weights", "convert", str(weights), str(out), "--storage", "fp16", "--name", "half"]) == 0
    shown = capsys.readouterr().out
    assert "model id    half-" in shown
    assert "storage     fp16" in shown


def test_two_files_are_compared_on_annotated_pictures(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for sample in SAMPLES:
        (masks / f"{sample.stem}.png").symlink_to(DATA / f"{sample.stem}-mask.png")
    only = tmp_path / "names.txt"
    only.write_text("kvasir-seg/polyp-1\n")
    folders = ["--images", str(SAMPLES[0].parent), "--masks", str(masks), "--only", str(only)]
    assert main(["weights", "compare", str(weights), str(weights), *folders]) == 0
    pictures, agreement, truth = capsys.readouterr().out.splitlines()
    assert pictures.endswith(" 1")
    assert agreement.endswith(" 1.0000")
    assert truth.endswith("(+0.0000)")
