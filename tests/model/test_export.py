"""Exports compute what PyTorch computes, and say what they need."""

from pathlib import Path

import numpy as np
import pytest

from model import export
from model.engines.openvino import int8 as openvino_int8
from model.errors import UserError
from model.network.normalisation import Normalised
from model.weights import checkpoint
from service.commands import export as command
from service.commands.main import main
from tests.support.patching import Patches
from tests.support.pictures import ROOT
from tests.support.processes import PROGRAM, pranet
from tests.support.servers.name_server import names_asked, namespaces

SAMPLES = ROOT / "service" / "samples"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """Return a repository for Triton, the home of who exported it, and the names that the export looked up."""
    for name in ("onnxruntime", "onnxscript"):
        pytest.importorskip(name, reason="the extra export is not installed")
    if not namespaces():
        pytest.skip("this machine lets nobody make a network of their own")
    home, repository = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("repository")
    command = [*PROGRAM, "export", "--triton", "--out", repository]
    return repository, home, names_asked(command, HOME=str(home), XDG_CACHE_HOME=str(home / ".cache"))


@pytest.mark.long
@pytest.mark.slow
def test_a_triton_repository_names_the_inputs_and_outputs_of_its_network(
    exported: tuple[Path, Path, list[str]], weights: Path
) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(exported[0] / "pranet" / "1" / "model.onnx")
    (pixels,), (logits,) = session.get_inputs(), session.get_outputs()
    config = (exported[0] / "pranet" / "config.pbtxt").read_text()
    assert f'name: "{pixels.name}" data_type: TYPE_UINT8 dims: [ {str(pixels.shape[1:])[1:-1]} ]' in config
    assert f'name: "{logits.name}" data_type: TYPE_FP32' in config
    assert config.count("{") == config.count("}")
    assert config.count("[") == config.count("]")
    network = Normalised(checkpoint.load(weights).network()).eval()
    for frames in (export._noise(1), export._noise(3)):  # of any batch size
        assert export._difference(network, session, frames) < export.TOLERANCE


@pytest.mark.long
@pytest.mark.slow
def test_an_export_reports_to_nobody(exported: tuple[Path, Path, list[str]]) -> None:
    """ONNX Runtime 1.32 looks up its maker's server and keeps an identifier of the user, unless it is told not to."""
    assert exported[2] == []
    assert [path for path in exported[1].rglob("*") if path.is_file()] == []


@pytest.mark.long
@pytest.mark.slow
def test_a_calibration_from_pictures_can_be_served(weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("nncf", reason="the extra int8 is not installed")
    out = tmp_path / "pranet.int8.safetensors"
    done = pranet("export", "--int8", "--calibrate", SAMPLES, "--out", out)
    assert done.returncode == 0, done.stderr
    loaded = checkpoint.load(weights)
    (tmp_path / "pranet.safetensors").symlink_to(weights)
    moved = checkpoint.load(tmp_path / "pranet.safetensors")
    assert len(openvino_int8.load(moved).inputs) == len(openvino_int8.load(loaded).inputs)


def test_int8_needs_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given, told in (([], "needs --calibrate"), (["--calibrate", str(tmp_path)], "holds no pictures")):
        assert main(["export", "--int8", "--out", str(tmp_path / "out"), *given]) == 2
        assert told in capsys.readouterr().err


def test_calibration_takes_pictures_from_the_whole_folder() -> None:
    frames = list(command._frames(command._listed([SAMPLES, SAMPLES]), set(), 10**8))
    assert len(frames) == 2 * len(list(SAMPLES.glob("*.jpg")))
    assert all((frame.shape, frame.dtype) == ((3, 352, 352), np.uint8) for frame in frames)


def test_calibration_takes_a_picture_from_each_of_many_folders(tmp_path: Path) -> None:
    (tmp_path / "patient.jpg").write_bytes((SAMPLES / "polyp-1.jpg").read_bytes())
    folders = [tmp_path] * (command.CALIBRATION_PICTURES + 1)
    assert len(list(command._frames(command._listed(folders), set(), 10**8))) == len(folders)


def test_calibration_leaves_out_what_it_cannot_decode_and_counts_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = (SAMPLES / "polyp-1.jpg").read_bytes()
    (tmp_path / "good.jpg").write_bytes(picture)
    (tmp_path / "damaged.jpg").write_bytes(picture[:400])
    (tmp_path / "study.dcm").write_bytes(b"DICM")  # no picture file; calibration takes none
    assert len(list(command._frames(command._listed([tmp_path]), set(), 10**8))) == 1
    named, counted = capsys.readouterr().err.splitlines()
    assert named.startswith(f"pranet: {tmp_path}/damaged.jpg is left out: ")
    assert counted == f"pranet: 1 of 2 pictures of {tmp_path} were left out"


def test_calibration_from_damaged_pictures_alone_is_an_error_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "damaged.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"none of 1 pictures of .* can be decoded"):
        list(command._frames(command._listed([tmp_path]), set(), 10**8))


def test_a_folder_to_calibrate_on_is_listed_once(tmp_path: Path, patched: Patches) -> None:
    calls = patched(command, "listed")
    (tmp_path / "list.txt").write_text("\n".join(each.name for each in SAMPLES.iterdir()))
    given = ["--calibrate", str(SAMPLES), "--exclude", str(tmp_path / "list.txt"), "--out", str(tmp_path / "out")]
    assert main(["export", "--int8", *given]) == 2
    assert calls.count == 1


def test_a_list_of_other_pictures_does_not_choose_those_to_calibrate_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.txt").write_text("elsewhere/polyp-1\n")
    given = ["--calibrate", str(SAMPLES), "--exclude", str(tmp_path / "list.txt"), "--out", str(tmp_path / "out")]
    assert main(["export", "--int8", *given]) == 2
    assert "list.txt: none of its 1 names is that of a picture; write them as service/" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["polyp-1", "service/polyp-1"])
def test_what_validates_does_not_calibrate(name: str) -> None:
    assert len(list(command._frames(command._listed([SAMPLES]), {name}, 10**8))) == len(list(SAMPLES.glob("*.jpg"))) - 1
