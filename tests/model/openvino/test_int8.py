"""int8: which operations, which weights, and when it is the default."""

import dataclasses
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from model import cores
from model.engines import factory
from model.engines.predictor import DeviceError, Predictor
from model.rewrites.folding import fold_batch_norm
from model.weights.checkpoint import Checkpoint
from tests.support.patching import Patches
from tests.support.pictures import ROOT

pytest.importorskip("openvino", reason="OpenVINO is not installed on this processor")
from model.engines.openvino import conversion as openvino_conversion
from model.engines.openvino import graph as openvino_graph
from model.engines.openvino import int8 as openvino_int8
from model.engines.openvino import predictor as openvino_predictor


def test_int8_finds_the_same_polyps(weights: Checkpoint, frames: np.ndarray, cache: Path, predictor: Predictor) -> None:
    coarse = factory.create(weights, device="cpu", precision="int8", cache_dir=cache)
    assert (coarse.model.engine, coarse.model.precision) == ("openvino", "int8")
    exact, found = predictor.predict(frames) > 0, coarse.predict(frames) > 0
    assert 2 * (exact & found).sum() / (exact.sum() + found.sum()) > 0.98


@pytest.mark.long
@pytest.mark.slow
def test_int8_without_vnni_finds_the_same_polyps(weights: Checkpoint, frames: np.ndarray, cache: Path) -> None:
    """There pairs of products are added in 16 bits, which saturate."""
    program = (
        "import pathlib, sys, numpy as np; from model.engines.openvino import predictor;"
        "from model.weights import weights_file;"
        "file = weights_file.identify(pathlib.Path(sys.argv[1]));"
        'engine = predictor.OpenVinoPredictor(file, "int8", "fp32", pathlib.Path(sys.argv[2]));'
        "np.save(sys.argv[4], engine.predict(np.load(sys.argv[3])))"
    )
    samples = cache / "frames.npy"
    np.save(samples, np.concatenate([frames, np.full_like(frames[:1], 255), 255 - frames]))
    found = []
    for processor in ("DEFAULT", "AVX2"):
        logits = cache / f"{processor}.npy"
        command = [sys.executable, "-c", program, weights.path, cache, samples, logits]
        subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "ONEDNN_MAX_CPU_ISA": processor})
        found.append(np.load(logits) > 0)
    assert found[0].any()
    assert (found[0] == found[1]).mean() > 0.995


def test_int8_keeps_weights_that_are_stored_in_8_bits(weights: Checkpoint) -> None:
    folded = fold_batch_norm(weights.network())
    convolutions = [each for each in folded.modules() if isinstance(each, torch.nn.Conv2d)]
    for convolution in convolutions:
        weight = convolution.weight.numpy()
        whole, scale = (each.get_node() for each in openvino_int8._rounded(weight).get_node().input_values())
        rounded = whole.input_value(0).get_node().get_data() * scale.get_data()
        assert np.allclose(rounded, weight, rtol=1e-5, atol=1e-7 * np.abs(weight).max())


def test_int8_rounds_other_weights_to_half_a_step_of_the_largest_in_a_channel() -> None:
    weight = np.random.default_rng(0).normal(size=(8, 4, 3, 3)).astype(np.float32)
    whole, scale = (each.get_node() for each in openvino_int8._rounded(weight).get_node().input_values())
    rounded = whole.input_value(0).get_node().get_data() * scale.get_data()
    error = np.abs(rounded - weight) / np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    assert error.max() < 0.5 / openvino_int8.WEIGHT_LIMIT + 1e-5


def test_all_convolutions_but_the_first_and_the_last_are_quantised(weights: Checkpoint) -> None:
    graph = openvino_conversion.convert(weights)
    openvino_int8.quantise(graph, openvino_int8.load(weights))
    convolutions = {each.get_friendly_name(): each for each in graph.get_ops() if "Convolution" in each.get_type_name()}
    floating = {name.split("/")[0] for name, each in convolutions.items() if openvino_int8._is_constant(each, 1)}
    first = ("conv1.0", "conv1.3", "conv1.6", *(f"layer1.0.{each}" for each in ("conv1", "last", "convs", "conv3")))
    last = [each for each in floating if re.search(r"\.(agg1\.|ra._conv5)", each)]
    others = (*first, "layer1.0.downsample.1", "layer2.0.convs")
    assert floating == {*last, *(f"__module.network.resnet.{each}" for each in others)}
    for name in convolutions.keys() - {f"{each}/aten::_convolution/Convolution" for each in floating}:
        assert convolutions[name].input_value(0).get_node().get_type_name() != "Constant"
    assert len(convolutions) - len(floating) > 120


def test_what_stays_in_floating_point_keeps_its_weights_in_bfloat16(weights: Checkpoint) -> None:
    graph = openvino_graph.graph(weights, "int8", None)
    convolutions = {each.get_friendly_name().split("/")[0]: each for each in graph.get_ops()}
    for name in ("conv1.3", "conv1.6", "layer1.0.conv1"):
        weight = convolutions[f"__module.network.resnet.{name}"].input_value(1).get_node().get_data()
        assert np.allclose(weight, np.rint(weight), atol=1e-4)
        assert np.abs(weight).max() > 100


@pytest.fixture
def created(patched: Patches) -> list[tuple[str, str]]:
    """Instead of the engine, what it was asked for: the precision, and that of operations in floating point."""
    asked = []
    patched(openvino_predictor, "OpenVinoPredictor", lambda _weights, *precisions, **_: asked.append(precisions[:2]))
    return asked


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("avx2 avx512f avx512_vnni", ("int8", "fp32")),
        ("avx2 avx512f avx512_vnni avx512_bf16", ("int8", "bf16")),
        ("avx2 avx512f avx512_vnni avx512_bf16 amx_tile amx_bf16 amx_int8", ("bf16", "bf16")),
        ("avx2 avx_vnni", ("fp32", "fp32")),
        ("avx2", ("fp32", "fp32")),
    ],
)
def test_the_precision_of_auto_is_the_fastest_that_was_measured_on_such_processors(
    weights: Checkpoint,
    created: list[tuple[str, str]],
    patched: Patches,
    tmp_path: Path,
    flags: str,
    expected: tuple[str, str],
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\n")
    for name in ("computes_bfloat16", "computes_int8"):
        patched(factory, name, partial(getattr(cores, name), info))
    factory.create(weights, device="cpu", engine="openvino")
    assert [each[:2] for each in created] == [expected]


def test_auto_computes_in_floating_point_without_a_calibration_of_these_very_weights(
    weights: Checkpoint,
    created: list[tuple[str, str]],
    patched: Patches,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    patched(factory, "computes_int8", lambda: True)
    elsewhere = dataclasses.replace(weights, path=tmp_path / "other.safetensors")
    floating = factory.resolve_precision("cpu", "openvino", "auto")
    factory.create(elsewhere, device="cpu", engine="openvino")
    assert not caplog.records
    calibration = openvino_int8.load(weights)
    openvino_int8.save(openvino_int8.path_for(elsewhere), calibration, elsewhere)
    factory.create(elsewhere, device="cpu", engine="openvino")
    factory.create(dataclasses.replace(elsewhere, sha256="0" * 64), device="cpu", engine="openvino")
    assert created == [(floating, floating), ("int8", floating), (floating, floating)]
    assert "was made for other weights" in caplog.text
    assert "until then, the service computes in floating point" in caplog.text


def test_int8_without_its_calibration_says_how_to_make_one(weights: Checkpoint, tmp_path: Path) -> None:
    elsewhere = dataclasses.replace(weights, path=tmp_path / "other.safetensors")
    with pytest.raises(DeviceError, match="pranet export --int8"):
        factory.create(elsewhere, device="cpu", precision="int8")
    with pytest.raises(DeviceError, match="needs the engine openvino"):
        factory.create(weights, device="cpu", engine="torch", precision="int8")
    for damaged in (b"", openvino_int8.path_for(weights).read_bytes()[:900]):
        openvino_int8.path_for(elsewhere).write_bytes(damaged)
        with pytest.raises(DeviceError, match=r"cannot be read .*pranet export --int8"):
            openvino_int8.load(elsewhere)
    with pytest.raises(DeviceError, match="other weights"):
        openvino_int8.load(dataclasses.replace(weights, sha256="0" * 64))


def test_damage_of_a_calibration_is_seen_wherever_it_is(weights: Checkpoint, tmp_path: Path) -> None:
    elsewhere = dataclasses.replace(weights, path=tmp_path / "other.safetensors")
    data = openvino_int8.path_for(weights).read_bytes()
    advice = re.escape(f"pranet export --int8 --weights {elsewhere.path} --calibrate PICTURES")
    inputs, names = (data.index(each) for each in (b"inputs", b"Convolution"))
    for place in (inputs + 10, names, len(data) - 300, len(data) - 1):
        damaged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        openvino_int8.path_for(elsewhere).write_bytes(damaged)
        with pytest.raises(DeviceError, match=f"(is damaged|cannot be read).*{advice}"):
            openvino_int8.load(elsewhere)
        assert not openvino_int8.is_calibrated(elsewhere)


def test_a_calibration_survives_its_file(weights: Checkpoint, tmp_path: Path) -> None:
    calibration = openvino_int8.load(weights)
    elsewhere = dataclasses.replace(weights, path=tmp_path / "other.safetensors")
    openvino_int8.save(openvino_int8.path_for(elsewhere), calibration, elsewhere)
    again = openvino_int8.load(elsewhere)
    assert again.inputs == calibration.inputs
    assert np.array_equal(again.ranges, calibration.ranges)
