"""The OpenVINO engine: the same answers as PyTorch, at any load, from a cache that may fail."""

import dataclasses
import logging
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model import cores, transforms
from model.engines import factory
from model.engines.predictor import DeviceError, Predictor
from model.engines.torch import predictor as torch_predictor
from model.rewrites.folding import fold_batch_norm
from model.weights import checkpoint
from model.weights.checkpoint import Checkpoint
from tests.support.patching import Calls, Patches
from tests.support.pictures import ROOT, SAMPLES

pytest.importorskip("openvino", reason="OpenVINO is not installed on this processor")
import openvino as ov

from model.engines.openvino import conversion as openvino_conversion
from model.engines.openvino import graph as openvino_graph
from model.engines.openvino import int8 as openvino_int8
from model.engines.openvino import predictor as openvino_predictor


@pytest.fixture(scope="module")
def weights() -> Checkpoint:
    return checkpoint.load(ROOT / "weights" / "pranet.safetensors")


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    samples = sorted((ROOT / "service" / "samples").glob("*.jpg"))
    return np.stack([transforms.to_input(Image.open(sample).convert("RGB")) for sample in samples])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def converted(weights: Checkpoint) -> ov.Model:
    return openvino_conversion.convert(weights, 352)


@pytest.fixture(scope="module")
def predictor(weights: Checkpoint, cache: Path) -> Predictor:
    return factory.create(weights, device="cpu", engine="openvino", precision="fp32", cache_dir=cache)


@pytest.fixture
def quick(converted: ov.Model, patched: Patches) -> Calls:
    """Let a conversion take no time; its result is a real one."""
    return patched(openvino_conversion, "convert", lambda weights, size: converted.clone())


def test_it_computes_what_pytorch_computes(weights: Checkpoint, frames: np.ndarray, predictor: Predictor) -> None:
    expected = factory.create(weights, device="cpu", engine="torch", precision="fp32").predict(frames)
    logits = predictor.predict(frames)
    assert (logits.shape, logits.dtype) == (expected.shape, np.float32)
    assert np.allclose(logits, expected, atol=0.05)
    assert ((logits > 0) == (expected > 0)).mean() > 0.9999


@pytest.mark.parametrize("size", [256, pytest.param(512, marks=[pytest.mark.long, pytest.mark.slow])])
def test_at_other_input_sizes_it_computes_what_pytorch_computes(weights: Checkpoint, tmp_path: Path, size: int) -> None:
    frames = np.stack([transforms.to_input(Image.open(sample), size) for sample in SAMPLES[:2]])
    engines = [
        factory.create(weights, device="cpu", engine=each, precision="fp32", cache_dir=tmp_path, input_size=size)
        for each in ("openvino", "torch")
    ]
    logits, expected = (each.predict(frames) for each in engines)
    assert [each.model.input_size for each in engines] == [size, size]
    assert logits.shape == expected.shape == (2, size, size)
    assert np.allclose(logits, expected, atol=0.05)


@pytest.mark.long
@pytest.mark.slow
def test_each_input_size_has_a_cached_graph_of_its_own(weights: Checkpoint, tmp_path: Path) -> None:
    for size in (352, 256, 256):
        assert openvino_graph.graph(weights, "fp32", tmp_path, size).inputs[0].shape == [1, 3, size, size]
    assert len(list(tmp_path.iterdir())) == 2


def test_bfloat16_is_computed_in_bfloat16_or_refused(weights: Checkpoint, cache: Path, predictor: Predictor) -> None:
    """OpenVINO itself would quietly compute in float32."""
    if "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert factory.create(weights, device="cpu", precision="bf16", cache_dir=cache).model.precision == "bf16"
    else:
        with pytest.raises(DeviceError, match="does not support bf16; use --precision fp32, int8 or auto"):
            factory.create(weights, device="cpu", engine="openvino", precision="bf16", cache_dir=cache)


def test_a_frame_gives_the_same_logits_alone_and_in_a_batch(frames: np.ndarray, predictor: Predictor) -> None:
    alone = np.concatenate([predictor.predict(frame[None]) for frame in frames])
    assert np.allclose(alone, predictor.predict(frames), atol=1e-3)


def test_batches_of_all_slots_keep_their_frames_apart(frames: np.ndarray, predictor: Predictor) -> None:
    expected = predictor.predict(frames)
    with ThreadPoolExecutor(2) as slots:
        for logits in slots.map(predictor.predict, [frames, frames[::-1].copy(), frames, frames[::-1].copy()]):
            same = np.allclose(logits, expected, atol=1e-3)
            assert same or np.allclose(logits[::-1], expected, atol=1e-3)


def test_the_default_on_an_x86_processor(weights: Checkpoint) -> None:
    assert factory.resolve_engine("cpu", "auto") == "openvino"
    assert factory.resolve_engine("cuda:0", "auto") == "torch"
    with pytest.raises(DeviceError, match="CPUs only"):
        factory.resolve_engine("cuda:0", "openvino")
    with pytest.raises(DeviceError, match="use auto, torch or openvino"):
        factory.resolve_engine("cpu", "tensorflow")


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


THREADS = """
import sys, threading
from model.engines.openvino import predictor
sys.setswitchinterval(1e-6)
start = threading.Barrier(8)

def busy():
    while True:
        sum(range(100))

def first_frame():
    start.wait()
    predictor.ov.Type.u8.to_dtype()

for _ in range(3):
    threading.Thread(target=busy, daemon=True).start()
threads = [threading.Thread(target=first_frame) for _ in range(8)]
for thread in threads:
    thread.start()
"""


@pytest.mark.slow
def test_the_first_frames_of_several_threads_do_not_wait_for_each_other_forever() -> None:
    """OpenVINO 2026.4 makes its table of types on first use, holding a lock while it gives up the interpreter's."""
    subprocess.run([sys.executable, "-c", THREADS], cwd=ROOT, check=True, timeout=60)


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


def test_pytorch_keeps_to_the_usable_cores(patched: Patches) -> None:
    patched(torch_predictor, "usable_cores", lambda: 1)
    threads = torch.get_num_threads()
    try:
        torch_predictor.limit_threads()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)


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


def test_only_the_convolutions_of_the_last_two_stages_are_quantised(weights: Checkpoint) -> None:
    graph = openvino_conversion.convert(weights)
    openvino_int8.quantise(graph, openvino_int8.load(weights))
    convolutions = [each for each in graph.get_ops() if each.get_type_name() == "Convolution"]
    rounded = {each.get_friendly_name() for each in convolutions if not openvino_int8._is_constant(each, 1)}
    assert rounded == {
        each.get_friendly_name() for each in convolutions if re.search(r"resnet\.layer[34]\.", each.get_friendly_name())
    }
    assert len(rounded) > 45


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


def test_a_calibration_survives_its_file(weights: Checkpoint, tmp_path: Path) -> None:
    calibration = openvino_int8.load(weights)
    elsewhere = dataclasses.replace(weights, path=tmp_path / "other.safetensors")
    openvino_int8.save(openvino_int8.path_for(elsewhere), calibration, elsewhere)
    again = openvino_int8.load(elsewhere)
    assert again.inputs == calibration.inputs
    assert np.array_equal(again.ranges, calibration.ranges)


def test_a_request_that_fails_waits_for_its_neighbours() -> None:
    waited: list[str] = []

    class Request:
        def __init__(self, name: str) -> None:
            self.name = name

        def wait(self) -> None:
            waited.append(self.name)
            if self.name == "poison":
                raise RuntimeError("failed")

    with pytest.raises(RuntimeError, match="failed"):
        openvino_predictor._wait([Request("poison"), Request("healthy")])
    assert "healthy" in waited


@pytest.mark.parametrize(("allowance", "expected"), [("50000 100000", 1), ("150000 100000", 2), ("max 100000", 1000)])
def test_a_container_uses_no_more_cores_than_it_may(
    allowance: str, expected: int, tmp_path: Path, patched: Patches
) -> None:
    patched(cores.os, "sched_getaffinity", lambda pid: set(range(1000)))
    (tmp_path / "own").write_text("0::/\n")
    (tmp_path / "cpu.max").write_text(allowance)
    assert cores.usable_cores(own=tmp_path / "own", mounted=tmp_path) == expected


@pytest.mark.parametrize(
    ("groups", "files"),
    [
        ("0::/system.slice/pranet.service\n", {"system.slice/pranet.service/cpu.max": "200000 100000"}),
        ("0::/pods/pod/container\n", {"pods/cpu.max": "200000 100000", "pods/pod/container/cpu.max": "max 100000"}),
        (
            "4:memory:/a\n3:cpu,cpuacct:/docker/1\n1:name=systemd:/docker/1\n",
            {"cpu/docker/1/cpu.cfs_quota_us": "150000", "cpu/docker/1/cpu.cfs_period_us": "100000"},
        ),
        (
            "3:cpu:/docker/1\n",  # as a container of version 1 sees it, whose group is mounted as the root
            {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"},
        ),
    ],
)
def test_the_quota_of_any_group_around_the_process_counts(
    groups: str, files: dict[str, str], tmp_path: Path, patched: Patches
) -> None:
    patched(cores.os, "sched_getaffinity", lambda pid: set(range(1000)))
    (tmp_path / "own").write_text(groups)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cores.usable_cores(own=tmp_path / "own", mounted=tmp_path) == 2
