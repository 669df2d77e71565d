"""The OpenVINO engine: the same answers as PyTorch, at any load."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model import transforms
from model.engines import factory
from model.engines.predictor import DeviceError, Predictor
from model.weights.checkpoint import Checkpoint
from tests.support.pictures import ROOT, SAMPLES

pytest.importorskip("openvino", reason="OpenVINO is not installed on this processor")
import openvino as ov

from model.engines.openvino import predictor as openvino_predictor


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


FREED = """
import os, signal, sys, threading
from pathlib import Path
from model.engines import factory
from model.weights import weights_file

held = [factory.create(weights_file.identify(Path(sys.argv[1])), device="cpu", precision="fp32", engine="openvino",
                       cache_dir=Path(sys.argv[2]))]
freeing = threading.Thread(target=held.clear)
freeing.start()
freeing.join()
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_signal_is_handled_after_another_thread_has_freed_a_network(weights: Checkpoint, cache: Path) -> None:
    command = [sys.executable, "-c", FREED, weights.path, cache]
    assert (
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout == "handled\n"
    )
