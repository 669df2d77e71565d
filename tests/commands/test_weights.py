"""``pranet weights``: inspect, convert, compare and blend."""

from pathlib import Path

import pytest
import torch

from model.weights import checkpoint
from service.commands.main import main
from tests.support.pictures import DATA, SAMPLES


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
    found, pictures, agreement, truth = capsys.readouterr().out.splitlines()
    assert found == "masks: 1 with levels 0, 1"
    assert pictures.endswith(" 1")
    assert agreement.endswith(" 1.0000")
    assert truth.endswith("(+0.0000)")


def test_a_blend_lies_between_two_files_and_names_both(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned, out, name = tmp_path / "tuned.safetensors", tmp_path / "blend.safetensors", "ra2_conv4.conv.weight"
    before = checkpoint.load(weights)
    checkpoint.save(tuned, before.state | {name: before.state[name] + 4}, "fp32", {"name": "tuned"})
    assert main(["weights", "blend", str(weights), str(tuned), str(out), "--share", "0.25"]) == 0
    assert f"0.75 of {before.model_id}, 0.25 of tuned-" in capsys.readouterr().out
    after = checkpoint.load(out).state
    torch.testing.assert_close(after[name], before.state[name] + 1)
    torch.testing.assert_close(after["resnet.conv1.0.weight"], before.state["resnet.conv1.0.weight"])


def test_a_share_beyond_one_is_refused(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "blend", str(weights), str(weights), "out", "--share", "1.5"]) == 2
    assert "give a number from 0 to 1" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_said(tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "convert", str(weights), str(tmp_path / "no" / "out.safetensors")]) == 2
    assert "cannot be written (No such file or directory)" in capsys.readouterr().err
