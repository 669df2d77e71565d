"""Predictor for CUDA GPUs: the network is recorded as one CUDA graph per batch size, then replayed.

Two lanes take turns. Each has its own stream, graphs and staging buffers, so that the frames and logits of one batch
are copied while the other batch is computed.
"""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx

from model.engines.cuda.branches import Branches
from model.engines.cuda.cudnn_fusion import fuse_activations
from model.engines.cuda.network import arrange
from model.engines.predictor import ModelRef
from model.engines.torch.predictor import DTYPES
from model.network.normalisation import Centred
from model.transforms import SIZE, Floats, Pixels
from model.weights import checkpoint
from model.weights.weights_file import WeightsFile

BUCKETS = (1, 2, 4, 8, 16, 32)  # recorded batch sizes; others are padded to the next larger one
BRANCHED = 8  # largest batch that is recorded with parallel branches; larger ones fill the GPU without them
HIGH = -1  # priority of the lanes' streams; branches have 0
LANES = 2
WARM_UP_RUNS = 3  # before a recording; cuDNN selects its kernels in the first run

log = logging.getLogger(__name__)

# A second recording would end the first: it synchronises the device, and cuDNN's flags are those of the whole process.
_recording = threading.Lock()


class CudaPredictor:
    """PraNet on a CUDA GPU, as CUDA graphs in channels-last layout."""

    slots = LANES

    def __init__(self, weights: WeightsFile, device: str, precision: str, input_size: int = SIZE) -> None:
        self._device = torch.device(device)
        name = torch.cuda.get_device_name(self._device)
        identity = (weights.model_id, weights.sha256)
        self.model = ModelRef(*identity, "torch", name, precision, weights.presence, input_size)
        network = Centred(arrange(checkpoint.of_file(weights).network(), input_size))
        network = network.to(self._device, DTYPES[precision]).to(memory_format=torch.channels_last)
        fused = fuse_activations(network)
        self._free: queue.SimpleQueue[Lane] = queue.SimpleQueue()
        for _ in range(LANES):
            self._free.put(Lane(fused, self._device, input_size))

    def warm_up(self, max_batch_size: int) -> None:
        """Record every batch size up to the largest; call it only before the first batch.

        Raises:
            torch.cuda.OutOfMemoryError: a single frame does not fit on the GPU.

        """
        largest = bucket_of(min(max_batch_size, BUCKETS[-1]))
        needed = [size for size in BUCKETS if size <= largest]
        for lane in record([self._free.get() for _ in range(self._free.qsize())], needed):
            self._free.put(lane)

    def predict(self, frames: Pixels) -> Floats:
        """Map uint8 RGB (N, 3, S, S) to float32 logits of S3 (N, S, S)."""
        lane = self._free.get()
        try:
            largest = max(lane.sizes)
            parts = [frames[start : start + largest] for start in range(0, len(frames), largest)]
            answers = [split_when_out_of_memory(lane.run, part) for part in parts]
            return answers[0] if len(answers) == 1 else np.concatenate(answers)
        finally:
            self._free.put(lane)


class Lane:
    """A stream with its graphs and the buffers that they read and write; used by one thread at a time."""

    sizes: Sequence[int] = BUCKETS  # batch sizes that it accepts

    def __init__(self, network: fx.GraphModule, device: torch.device, input_size: int = SIZE) -> None:
        self._network, self._device, self.input_size = network, device, input_size
        # PyTorch reuses a few streams of each priority in turn. A priority of their own keeps a lane's stream from
        # being given to a branch that is recorded while the lane runs.
        self._stream = torch.cuda.Stream(device, priority=HIGH)  # type: ignore[no-untyped-call]
        self._done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # waiting frees the core
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._pool = torch.cuda.graph_pool_handle()  # a lane runs one batch at a time, so its graphs share memory
        frames = (BUCKETS[-1], 3, input_size, input_size)
        self._staged = torch.empty(frames, dtype=torch.uint8, pin_memory=True)
        self._pixels = torch.zeros(frames, dtype=torch.uint8, device=device)

    def run(self, frames: Pixels) -> Floats:
        """Map uint8 RGB (N, 3, S, S) to float32 logits (N, S, S); N is at most the largest of ``sizes``."""
        count = len(frames)
        with torch.inference_mode(), torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            graph, logits = self._recorded(bucket_of(count, self.sizes))
            self._staged[:count].copy_(torch.from_numpy(frames))
            self._pixels[:count].copy_(self._staged[:count], non_blocking=True)
            graph.replay()
            answer = torch.empty(logits[:count].shape, pin_memory=True)  # from PyTorch's cache of pinned memory
            answer.copy_(logits[:count], non_blocking=True)
            self._done.record()
            self._done.synchronize()
            return answer.numpy()

    def _recorded(self, size: int) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        if size not in self._graphs:
            with _recording:
                self._graphs[size] = self._record(self._pixels[:size])
        return self._graphs[size]

    def _record(self, pixels: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """Record one batch size; cuDNN selects its kernels by timing, and float32 is not reduced to TF32."""
        graph = torch.cuda.CUDAGraph()
        network = Branches(self._network).run if len(pixels) <= BRANCHED else self._network
        with _out_of_memory_first(), torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
            for _ in range(WARM_UP_RUNS):
                _logits(self._network, pixels)
            # "thread_local": another predictor may run at the same time, as during a reload of weights.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                logits = _logits(network, pixels)
        return graph, logits


def _logits(network: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
    coarse = network(pixels).float()
    return F.interpolate(coarse, pixels.shape[2:], mode="bilinear", align_corners=False)[:, 0]


def record(lanes: Sequence[Lane], sizes: Sequence[int]) -> list[Lane]:
    """Record batch sizes on each lane, largest first because it needs most memory; return the lanes that fit.

    Raises:
        torch.cuda.OutOfMemoryError: a single frame does not fit in the first lane.

    """
    recorded: list[Lane] = []
    for lane in lanes:
        try:
            lane.sizes = _recorded_sizes(lane, sizes)
            recorded.append(lane)
        except torch.cuda.OutOfMemoryError:
            if not recorded:
                raise
            log.warning("GPU memory is enough for only %d batch in flight", len(recorded))
    return recorded


def _recorded_sizes(lane: Lane, sizes: Sequence[int]) -> list[int]:
    recorded = []
    for size in sorted(sizes, reverse=True):
        try:
            lane.run(np.zeros((size, 3, lane.input_size, lane.input_size), np.uint8))
            recorded.append(size)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            if size == min(sizes) and not recorded:
                raise
            log.warning("GPU memory is not enough for batches of %d frames", size)
    return recorded


@contextlib.contextmanager
def _out_of_memory_first() -> Iterator[None]:
    """Raise the out-of-memory error that ended a recording, not the error about open branches that follows."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error.__context__, torch.cuda.OutOfMemoryError):
            raise error.__context__ from None
        raise


def bucket_of(count: int, sizes: Iterable[int] = BUCKETS) -> int:
    """Return the smallest of ``sizes`` that is at least ``count``."""
    return min(size for size in sizes if size >= count)


def split_when_out_of_memory(predict: Callable[[Pixels], Floats], frames: Pixels) -> Floats:
    """Call ``predict``; halve a batch that does not fit into GPU memory until it does.

    Raises:
        torch.cuda.OutOfMemoryError: a single frame does not fit.

    """
    try:
        return predict(frames)
    except torch.cuda.OutOfMemoryError:
        if len(frames) == 1:
            raise
    torch.cuda.empty_cache()
    half = len(frames) // 2
    halves = (split_when_out_of_memory(predict, part) for part in (frames[:half], frames[half:]))
    return np.concatenate(list(halves))
