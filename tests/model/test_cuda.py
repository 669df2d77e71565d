"""On a GPU: fp16 finds the same polyps, nobody pays for a first time, and a batch that does not fit is split."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import fx

from model.engines import factory
from model.engines.cuda.branches import Branches
from model.engines.cuda.cudnn_fusion import fuse_activations
from model.engines.cuda.network import arrange
from model.engines.cuda.predictor import CudaPredictor, split_when_out_of_memory
from model.network.normalisation import Centred
from model.transforms import Floats, Pixels, to_input
from model.weights import checkpoint
from tests.support.pictures import SAMPLES, annotation, dice, mask_of
from tests.support.serving import serving

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")]

LARGEST = 32
FIRST_TO_LATER = 1.5  # how much slower the first request may be than the later ones


@pytest.fixture(scope="module")
def gpu(weights: Path) -> CudaPredictor:
    predictor = factory.create(checkpoint.load(weights), device="cuda", engine="torch")
    assert isinstance(predictor, CudaPredictor)
    predictor.warm_up(LARGEST)
    return predictor


@pytest.fixture(scope="module")
def frames() -> Pixels:
    return np.stack([to_input(Image.open(sample).convert("RGB")) for sample in SAMPLES])


def batch(frames: Pixels, size: int) -> Pixels:
    return np.resize(frames, (size, *frames.shape[1:]))


def seconds(predictor: CudaPredictor, frames: Pixels) -> float:
    began = time.perf_counter()
    predictor.predict(frames)
    return time.perf_counter() - began


def test_fp16_finds_the_same_polyps_as_float32(gpu: CudaPredictor, weights: Path, frames: Pixels) -> None:
    assert gpu.model.precision == "fp16"
    exact = factory.create(checkpoint.load(weights), device="cpu", engine="torch", precision="fp32")
    for coarse, fine in zip(gpu.predict(frames) > 0, exact.predict(frames) > 0, strict=True):
        assert dice(coarse, fine) >= 0.99


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 16, 31, LARGEST])
def test_the_first_batch_of_any_size_is_as_fast_as_later_ones(gpu: CudaPredictor, frames: Pixels, size: int) -> None:
    pixels = batch(frames, size)
    first, *later = (seconds(gpu, pixels) for _ in range(11))
    assert first <= FIRST_TO_LATER * float(np.median(later)) + 0.002  # a hiccup of the host is not a cold kernel


def test_an_allocation_failure_splits_the_batch(gpu: CudaPredictor, frames: Pixels) -> None:
    sizes: list[int] = []

    def short_of_memory(pixels: Pixels) -> Floats:
        sizes.append(len(pixels))
        if len(pixels) > 2:
            torch.empty(2**50, dtype=torch.uint8, device="cuda")  # a real refusal, more than any GPU holds
        return gpu.predict(pixels)

    pixels = batch(frames, 5)
    assert np.allclose(split_when_out_of_memory(short_of_memory, pixels), gpu.predict(pixels), atol=0.1)
    assert max(sizes[1:]) < 5


@torch.inference_mode()
def test_branches_compute_what_one_stream_does(weights: Path, frames: Pixels) -> None:
    network = Centred(arrange(checkpoint.load(weights).network())).to("cuda").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fused, pixels = fuse_activations(network), torch.from_numpy(frames).cuda()
    expected = fused(pixels)
    streams: set[int] = set()

    class Watched(Branches):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            streams.update(stream.cuda_stream for stream in self._last)
            return result

    for _ in range(10):  # a race would not show every time
        torch.testing.assert_close(Watched(fused).run(pixels), expected, rtol=0, atol=0.01)
    assert len(streams) > 2


def test_weights_that_warm_up_disturb_nobody(gpu: CudaPredictor, weights: Path, frames: Pixels) -> None:
    expected = gpu.predict(frames)
    with ThreadPoolExecutor(1) as pool:
        warming = pool.submit(factory.create(checkpoint.load(weights), device="cuda", engine="torch").warm_up, LARGEST)
        while not warming.done():
            assert np.allclose(gpu.predict(frames), expected, atol=0.1)
        warming.result()


@pytest.mark.parametrize("gigabytes", [1.0, 1.5])
def test_a_gpu_with_little_memory_left_serves_in_smaller_batches(
    weights: Path, frames: Pixels, gpu: CudaPredictor, gigabytes: float
) -> None:
    pixels = batch(frames, LARGEST)
    expected = gpu.predict(pixels)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + gigabytes * 1e9) / total)
    try:
        short = factory.create(checkpoint.load(weights), device="cuda", engine="torch")
        short.warm_up(LARGEST)
        assert np.allclose(short.predict(pixels), expected, atol=0.1)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


async def test_segment_answers_right_masks(gpu: CudaPredictor) -> None:
    async with serving(gpu, device="cuda") as running:
        for sample in SAMPLES:
            answer = await running.rest.post("/segment", content=sample.read_bytes())
            assert dice(mask_of(answer.content), annotation(sample)) >= 0.7


async def test_metrics_say_how_the_gpu_fares(gpu: CudaPredictor) -> None:
    async with serving(gpu, device="cuda") as running:
        text = (await running.rest.get("/metrics")).text
    memory = float(text.rpartition('pranet_gpu_memory_used_bytes{gpu="cuda:0"} ')[2].split()[0])
    utilization = float(text.rpartition('pranet_gpu_utilization_ratio{gpu="cuda:0"} ')[2].split()[0])
    assert memory > 100e6  # the weights, their context and what cuDNN took
    assert 0 <= utilization <= 1
