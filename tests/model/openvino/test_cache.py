"""The graph that OpenVINO keeps for the next start: it may be damaged, foreign, or in nobody's reach."""

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from model.engines.predictor import Predictor
from model.weights.checkpoint import Checkpoint
from tests.support.patching import Calls, Patches
from tests.support.pictures import ROOT

pytest.importorskip("openvino", reason="OpenVINO is not installed on this processor")
import openvino as ov

from model.engines.openvino import conversion as openvino_conversion
from model.engines.openvino import graph as openvino_graph


@pytest.fixture
def quick(converted: ov.Model, patched: Patches) -> Calls:
    """Let a conversion take no time; its result is a real one."""
    return patched(openvino_conversion, "convert", lambda weights, size: converted.clone())


@pytest.mark.long
@pytest.mark.slow
def test_each_input_size_has_a_cached_graph_of_its_own(weights: Checkpoint, tmp_path: Path) -> None:
    for size in (352, 256, 256):
        assert openvino_graph.graph(weights, "fp32", tmp_path, size).inputs[0].shape == [1, 3, size, size]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_second_start_converts_nothing(
    weights: Checkpoint, cache: Path, predictor: Predictor, quick: Calls, tmp_path: Path
) -> None:
    assert openvino_graph.graph(weights, "fp32", cache).inputs[0].shape == [1, 3, 352, 352]
    assert quick.count == 0
    openvino_graph.graph(weights, "fp32", tmp_path)
    assert quick.count == 1


@pytest.mark.slow
@pytest.mark.usefixtures("predictor")
def test_a_start_from_the_cache_takes_no_time_for_pytorch(weights: Checkpoint, cache: Path) -> None:
    program = (
        "import pathlib, sys; from model.engines import factory; from model.weights import weights_file;"
        "from service import app;"
        "file = weights_file.identify(pathlib.Path(sys.argv[1]));"
        'factory.create(file, engine="openvino", precision="fp32");'
        'sys.exit("torch" in sys.modules)'
    )
    environment = os.environ | {"PRANET_CACHE_DIR": str(cache)}
    subprocess.run([sys.executable, "-c", program, weights.path], cwd=ROOT, check=True, env=environment)


@pytest.mark.usefixtures("quick")
def test_a_damaged_cache_is_made_anew(
    weights: Checkpoint, predictor: Predictor, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (kept,) = cache.glob(f"*/{openvino_graph.FILE}")
    kept.write_text("<net")
    openvino_graph.graph(weights, "fp32", cache)
    assert "converted again" in caplog.text
    assert "</net>" in kept.read_text()


@pytest.mark.usefixtures("quick")
def test_a_damaged_weight_in_the_cache_is_seen_and_the_graph_made_anew(
    weights: Checkpoint, predictor: Predictor, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    openvino_graph.graph(weights, "fp32", cache)
    assert not caplog.text
    (kept,) = cache.glob(f"*/{openvino_graph.WEIGHTS}")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:100_000] + bytes(4096) + whole[104_096:])
    openvino_graph.graph(weights, "fp32", cache)
    assert "converted again: its files have changed" in caplog.text
    assert kept.read_bytes() == whole


@pytest.mark.usefixtures("quick")
def test_a_cache_that_may_not_be_read_is_only_a_warning(
    weights: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture, patched: Patches
) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    patched(Path, "exists", refuse)
    assert openvino_graph.graph(weights, "fp32", tmp_path).inputs[0].shape == [1, 3, 352, 352]
    assert "Permission denied" in caplog.text


def test_a_graph_that_another_process_has_cached_meanwhile_is_kept(
    weights: Checkpoint, tmp_path: Path, quick: Calls, patched: Patches
) -> None:
    made = openvino_graph.graph(weights, "fp32", tmp_path)
    (kept,) = tmp_path.iterdir()
    first = (kept / "graph.bin").stat().st_ino
    openvino_graph._keep(made, kept)
    assert list(tmp_path.iterdir()) == [kept]
    assert (kept / "graph.bin").stat().st_ino == first  # others may have it open


def test_what_a_killed_process_left_of_its_cache_is_removed(weights: Checkpoint, tmp_path: Path, quick: Calls) -> None:
    made = openvino_graph.graph(weights, "fp32", tmp_path)
    (kept,) = tmp_path.iterdir()
    old, new = (tmp_path / f"{kept.name}.{end}" for end in ("0123abcd", "4567abcd"))
    for each in (old, new):
        each.mkdir()
    os.utime(old, (0, 0))
    openvino_graph._keep(made, kept)
    assert sorted(tmp_path.iterdir()) == [kept, new]  # the new one may be at work


def test_of_a_network_in_int8_the_graphs_of_the_two_calibrations_that_were_used_last_stay(
    converted: ov.Model, tmp_path: Path
) -> None:
    names = [f"openvino-weights-{each}" for each in ("int8-aaaa", "int8-bbbb", "256-int8-aaaa")]
    first, second, of_another_size = (tmp_path / name for name in names)
    for seconds, each in enumerate((first, second, of_another_size)):
        openvino_graph._keep(converted, each)
        os.utime(each, (seconds, seconds))
    openvino_graph._read(first)
    newest = tmp_path / "openvino-weights-int8-cccc"
    openvino_graph._keep(converted, newest)
    assert sorted(tmp_path.iterdir()) == sorted([first, newest, of_another_size])


def test_another_user_may_read_what_is_cached(cache: Path, predictor: Predictor) -> None:
    (folder,) = cache.iterdir()
    reference = cache / "made by hand"
    reference.mkdir()
    assert folder.stat().st_mode == reference.stat().st_mode
    reference.rmdir()


@pytest.mark.usefixtures("quick")
def test_a_cache_that_cannot_be_written_is_only_a_warning(
    weights: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = tmp_path / "file"
    nowhere.touch()
    with caplog.at_level(logging.WARNING):
        assert openvino_graph.graph(weights, "fp32", nowhere).inputs[0].shape == [1, 3, 352, 352]
    assert "CACHE_DIR" in caplog.text


@pytest.mark.usefixtures("quick")
def test_a_full_disk_of_the_cache_is_named_although_openvino_does_not(
    weights: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture, patched: Patches
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("basic_ios::clear: iostream error")

    def full(descriptor: int, offset: int, size: int) -> None:
        wanted.append(size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    wanted: list[int] = []
    patched(ov, "save_model", fail)
    patched(os, "posix_fallocate", full)
    assert openvino_graph.graph(weights, "fp32", tmp_path).inputs[0].shape == [1, 3, 352, 352]
    assert "cannot be cached ([Errno 28] No space left on device)" in caplog.text
    assert "can be written and has room" in caplog.text
    assert wanted[0] > 50e6
    assert not list(tmp_path.iterdir())
