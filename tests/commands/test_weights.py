"""``pranet weights``: inspect, convert, compare and blend."""

from pathlib import Path

import pytest
import torch

from model.evaluation import comparison
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
    only.write_text(f"{SAMPLES[0].parents[1].name}/polyp-1.JPG\n")
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


@pytest.mark.parametrize("act", ["convert", "blend"])
def test_weights_are_not_written_under_the_name_of_a_pytorch_file(
    act: str, tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.PTH"
    inputs = [str(weights)] * (2 if act == "blend" else 1)
    assert main(["weights", act, *inputs, str(out)]) == 2
    assert f"OUT {out} would be a safetensors file; end its name with .safetensors" in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_that_is_not_there_is_said(tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "convert", str(weights), str(tmp_path / "no" / "out.safetensors")]) == 2
    assert "cannot be written (No such file or directory)" in capsys.readouterr().err


def test_each_folder_of_pictures_is_compared_with_its_own_masks(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, sample in zip(("a", "b"), SAMPLES, strict=False):
        for kind in ("images", "masks"):
            (tmp_path / place / kind).mkdir(parents=True)
        (tmp_path / place / "images" / "case.1.jpg").symlink_to(sample)
        (tmp_path / place / "masks" / "case.1.png").symlink_to(DATA / f"{sample.stem}-mask.png")
    images, masks = ([str(tmp_path / place / kind) for place in ("a", "b")] for kind in ("images", "masks"))
    pairs = comparison.pairs([Path(each) for each in images], [Path(each) for each in masks])
    assert [pair.mask and pair.mask.parents[1].name for pair in pairs] == ["a", "b"]
    only = tmp_path / "names.txt"
    only.write_text("a/case.1\n")
    command = ["weights", "compare", str(weights), str(weights), "--images", *images, "--masks"]
    assert main([*command, *masks, "--only", str(only)]) == 0
    assert "pictures            1\n" in capsys.readouterr().out
    only.write_text("c/case.1\n")
    assert main([*command, *masks, "--only", str(only)]) == 2
    assert "names.txt: none of its 1 names is that of a picture; write them as a/case.1" in capsys.readouterr().err
    assert main([*command, masks[0]]) == 2
    assert "as many folders of --masks as of --images" in capsys.readouterr().err
