"""PraNet on a CUDA GPU as a predictor: what a batch needs is recorded once for each size, and replayed.

Two lanes take turns. Each has its own stream, recordings and staging buffers, so that the frames and logits of one
batch are copied while the other is computed.
"""

import queue
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from model.alignment import align_channels
from model.checkpoint import Checkpoint
from model.cudnn_fusion import fuse_activations
from model.folding import fold_batch_norm
from model.normalisation import Normalised
from model.predictor import ModelRef
from model.torch_predictor import DTYPES
from model.transforms import SIZE, Floats, Pixels

BUCKETS = (1, 2, 4, 8, 16, 32)  # batch sizes that are recorded; others are padded to the next one
LANES = 2
WARM_UP_RUNS = 3  # before a recording: cuDNN tries its kernels in the first


class CudaPredictor:
    """PraNet in CUDA graphs, batch-norm folded, channels last."""

    slots = LANES

    def __init__(self, checkpoint: Checkpoint, device: str, precision: str) -> None:
        self._device = torch.device(device)
        name = torch.cuda.get_device_name(self._device)
        self.model = ModelRef(checkpoint.model_id, checkpoint.sha256, "torch", name, precision, checkpoint.presence)
        network = Normalised(align_channels(fold_batch_norm(checkpoint.network())))
        network = network.to(self._device, DTYPES[precision]).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        fused = fuse_activations(network)
        self._lanes = [_Lane(fused, self._device) for _ in range(LANES)]
        self._free: queue.SimpleQueue[_Lane] = queue.SimpleQueue()
        for lane in self._lanes:
            self._free.put(lane)

    def warm_up(self, max_batch_size: int) -> None:
        """Record every bucket up to the one that holds the largest batch, largest first: it needs the most memory."""
        needed = [each for each in BUCKETS if each <= bucket_of(min(max_batch_size, BUCKETS[-1]))]
        for lane in self._lanes:
            for size in reversed(needed):
                split_when_out_of_memory(lane.run, np.zeros((size, 3, SIZE, SIZE), np.uint8))

    def predict(self, frames: Pixels) -> Floats:
        """Map uint8 RGB (N, 3, 352, 352) to float32 logits of S3 (N, 352, 352)."""
        lane = self._free.get()
        try:
            largest = BUCKETS[-1]
            parts = [frames[start : start + largest] for start in range(0, len(frames), largest)]
            answers = [split_when_out_of_memory(lane.run, part) for part in parts]
            return answers[0] if len(answers) == 1 else np.concatenate(answers)
        finally:
            self._free.put(lane)


class _Lane:
    """A stream with its recordings and the buffers that they read and write; for one thread at a time."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._network, self._device = network, device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # a wait that leaves the core to others
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._pool = torch.cuda.graph_pool_handle()  # one batch at a time: its graphs can share memory
        frames = (BUCKETS[-1], 3, SIZE, SIZE)
        self._staged = torch.empty(frames, dtype=torch.uint8, pin_memory=True)
        self._pixels = torch.zeros(frames, dtype=torch.uint8, device=device)
        self._answer = torch.empty((BUCKETS[-1], SIZE, SIZE), pin_memory=True)

    def run(self, frames: Pixels) -> Floats:
        """Copy frames (N, 3, 352, 352), N at most the largest bucket, to the GPU, replay, and copy the logits back."""
        count = len(frames)
        with torch.inference_mode(), torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            graph, logits = self._recorded(bucket_of(count))
            self._staged[:count].copy_(torch.from_numpy(frames))
            self._pixels[:count].copy_(self._staged[:count], non_blocking=True)
            graph.replay()
            self._answer[:count].copy_(logits[:count], non_blocking=True)
            self._done.record()
            self._done.synchronize()
            return self._answer[:count].numpy().copy()

    def _recorded(self, size: int) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        if size not in self._graphs:
            self._graphs[size] = self._record(self._pixels[:size])
        return self._graphs[size]

    def _record(self, pixels: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """Record a batch size; cuDNN picks its kernels by trial, and float32 means float32, not TF32."""
        graph = torch.cuda.CUDAGraph()
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
            for _ in range(WARM_UP_RUNS):
                self._logits(pixels)
            # "thread_local": another predictor may answer meanwhile, as when weights are swapped.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                logits = self._logits(pixels)
        return graph, logits

    def _logits(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self._network(pixels)
        return logits[:, 0].float()


def bucket_of(count: int) -> int:
    """Return the smallest bucket that holds a number of frames."""
    return next(size for size in BUCKETS if size >= count)


def split_when_out_of_memory(predict: Callable[[Pixels], Floats], frames: Pixels) -> Floats:
    """Call ``predict``; a batch that does not fit on the GPU is halved until it does.

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
