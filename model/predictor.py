"""A network on a device: precision, warm-up, one batched call. The seam behind which engines change."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from model.checkpoint import Checkpoint
from model.errors import UserError
from model.folding import fold_batch_norm
from model.pranet import PraNet
from model.presence import Presence
from model.transforms import MEAN, SIZE, STD, Floats, Pixels

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class DeviceError(UserError):
    """The wanted device, engine or precision is not to be had here; the message says what is."""


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Names the weights behind an answer, and what runs them."""

    model_id: str
    weights_sha256: str
    engine: str
    device: str
    precision: str
    presence: Presence | None = None  # what makes a score of a frame's logits, if the weights have it


class Predictor(Protocol):
    """What the service needs of an engine."""

    model: ModelRef
    slots: int  # batches that may be in flight at once

    def warm_up(self, max_batch_size: int) -> None:
        """Run every batch size that will be served, so that no request pays for a first time."""

    def predict(self, frames: Pixels) -> Floats:
        """Map uint8 RGB (N, 3, 352, 352) to float32 logits of S3 (N, 352, 352); thread-safe."""


class TorchPredictor:
    """PraNet in PyTorch, batch-norm folded, channels last, on a CPU or a CUDA GPU."""

    slots = 1

    def __init__(self, checkpoint: Checkpoint, device: torch.device, precision: str) -> None:
        self.model = ModelRef(
            checkpoint.model_id, checkpoint.sha256, "torch", device_name(device), precision, checkpoint.presence
        )
        self._device = device
        network = Normalised(fold_batch_norm(checkpoint.network()))
        self._network = network.to(device, DTYPES[precision]).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def warm_up(self, max_batch_size: int) -> None:
        """Run every batch size once on a GPU; on a CPU, where only the first run differs, one and the largest."""
        sizes = range(1, max_batch_size + 1) if self._device.type == "cuda" else (1, max_batch_size)
        for size in sizes:
            self.predict(np.zeros((size, 3, SIZE, SIZE), np.uint8))

    def predict(self, frames: Pixels) -> Floats:
        """Map uint8 RGB (N, 3, 352, 352) to float32 logits of S3 (N, 352, 352)."""
        return split_when_out_of_memory(self._predict, frames)

    def _predict(self, frames: Pixels) -> Floats:
        with torch.inference_mode():
            logits: Tensor = self._network(torch.from_numpy(frames).to(self._device))
            return logits[:, 0].float().cpu().numpy()


class Normalised(nn.Module):
    """PraNet behind its normalisation, so that callers send raw pixels."""

    def __init__(self, network: PraNet) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", 255 * torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(STD).view(1, 3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, pixels: Tensor) -> Tensor:
        """Map uint8 RGB (N, 3, H, W) to logits (N, 1, H, W)."""
        x = (pixels.to(self.mean.dtype) - self.mean) / self.std
        logits: Tensor = self.network(x.contiguous(memory_format=torch.channels_last))
        return logits


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


def device_name(device: torch.device) -> str:
    """Name the device for people: the GPU's name, or ``cpu``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
