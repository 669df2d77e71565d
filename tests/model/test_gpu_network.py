"""The network as a GPU gets it: other shapes and other kernels, the same function. (On a GPU itself: test_cuda.py.)"""

import gc
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from model.engines.cuda.cudnn_fusion import fuse_activations
from model.engines.cuda.network import FirstBlock, LateGate, arrange
from model.engines.cuda.predictor import BUCKETS, Lane, bucket_of, record
from model.network.pranet import PraNet
from model.network.res2net import Bottle2neck
from model.rewrites.channel_padding import ALIGNMENT, align_channels
from model.rewrites.folding import fold_batch_norm
from model.transforms import SIZE
from model.weights import checkpoint
from tests.support.patching import Patches

SIDE = 96


@pytest.fixture(scope="module")
def folded(weights: Path) -> Callable[[], PraNet]:
    loaded = checkpoint.load(weights)
    return lambda: fold_batch_norm(loaded.network())


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def test_no_two_recordings_of_a_gpu_run_at_once(patched: Patches) -> None:
    at_once, most = 0, 0

    def slow(lane: Lane, pixels: Tensor) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        time.sleep(0.05)
        at_once -= 1

    patched(Lane, "_record", slow)
    lanes = [object.__new__(Lane) for _ in range(2)]
    for lane in lanes:
        lane._graphs, lane._pixels = {}, torch.zeros(2, 1)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda number: lanes[number % 2]._recorded(1 + number // 2), range(4)))
    assert most == 1


class OnCpu(fx.Interpreter):
    """Runs a fused network without cuDNN: its two kernels as their documentation defines them."""

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target is torch.cudnn_convolution_relu:
            return F.relu(F.conv2d(*args))
        if target is torch.cudnn_convolution_add_relu:
            x, weight, residual, factor, *rest = args
            return F.relu(F.conv2d(x, weight, *rest) + factor * residual)
        return super().call_function(target, args, kwargs)


@torch.inference_mode()
def test_aligned_channels_compute_the_same(folded: Callable[[], PraNet], pictures: Tensor) -> None:
    aligned = align_channels(folded())
    widths = {block.width for block in aligned.modules() if isinstance(block, Bottle2neck)}
    assert not [width for width in widths if width % ALIGNMENT]
    torch.testing.assert_close(aligned(pictures), folded()(pictures), rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_the_arranged_network_computes_the_same_in_fewer_layers(weights: Path) -> None:
    loaded = checkpoint.load(weights)
    picture = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    expected, arranged = fold_batch_norm(loaded.network()), arrange(loaded.network())
    torch.testing.assert_close(arranged(picture), expected(picture), rtol=1e-4, atol=1e-4)
    assert _count(arranged, nn.AvgPool2d) == 0 < _count(expected, nn.AvgPool2d)
    assert (_count(arranged, FirstBlock), _count(arranged, LateGate)) == (4, 3)
    assert _count(arranged, nn.Conv2d) == _count(expected, nn.Conv2d) - 2 * 4 - 2  # first blocks, and the decoder


@torch.inference_mode()
def test_fused_kernels_compute_the_same(folded: Callable[[], PraNet], pictures: Tensor) -> None:
    fused = fuse_activations(folded())
    torch.testing.assert_close(OnCpu(fused).run(pictures), folded()(pictures), rtol=1e-4, atol=1e-4)


def test_a_fused_network_is_freed_with_its_last_reference(folded: Callable[[], PraNet]) -> None:
    fused = fuse_activations(folded())
    weight = weakref.ref(next(fused.parameters()))
    gc.collect()  # what tracing has left
    gc.disable()
    try:
        del fused
        assert weight() is None
    finally:
        gc.enable()


def test_every_activation_of_a_convolution_is_fused(folded: Callable[[], PraNet]) -> None:
    fused = fuse_activations(folded())
    modules = dict(fused.named_modules())
    assert not [node for node in fused.graph.nodes if node.target is F.relu]
    assert not [node for node in fused.graph.nodes if isinstance(modules.get(str(node.target)), nn.ReLU)]


def _count(network: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in network.modules())


@pytest.mark.parametrize(("frames", "bucket"), [(1, 1), (3, 4), (8, 8), (17, 32), (32, 32)])
def test_batches_run_in_the_smallest_bucket_that_holds_them(frames: int, bucket: int) -> None:
    assert bucket_of(frames) == bucket
    assert bucket in BUCKETS


def test_a_batch_size_without_a_recording_takes_the_next_one() -> None:
    assert bucket_of(1, [8, 32]) == 8


class Memory:
    """A GPU's memory for so many more recordings, each of which takes what its size says."""

    def __init__(self, frames: int) -> None:
        self.left = frames

    def run(self, frames: np.ndarray) -> None:
        if len(frames) > self.left:
            raise torch.cuda.OutOfMemoryError("no memory")
        self.left -= len(frames)


class Recorder:
    """A lane as ``record`` sees it."""

    def __init__(self, memory: Memory) -> None:
        self.run = memory.run
        self.sizes, self.input_size = BUCKETS, 352


@pytest.mark.parametrize(
    ("memory", "sizes"),
    [
        (126, [[32, 16, 8, 4, 2, 1], [32, 16, 8, 4, 2, 1]]),
        (80, [[32, 16, 8, 4, 2, 1], [16, 1]]),
        (63, [[32, 16, 8, 4, 2, 1]]),
        (40, [[32, 8]]),
        (1, [[1]]),
    ],
)
def test_with_little_memory_there_are_smaller_batches_or_fewer_at_once(memory: int, sizes: list[list[int]]) -> None:
    shared = Memory(memory)
    lanes: Any = [Recorder(shared), Recorder(shared)]
    assert [lane.sizes for lane in record(lanes, BUCKETS)] == sizes


def test_without_memory_for_a_frame_there_is_an_error() -> None:
    lanes: Any = [Recorder(Memory(0))]
    with pytest.raises(torch.cuda.OutOfMemoryError):
        record(lanes, BUCKETS)
