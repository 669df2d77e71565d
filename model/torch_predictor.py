"""PraNet in PyTorch as a predictor."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from model.checkpoint import Checkpoint
from model.folding import fold_batch_norm
from model.pranet import PraNet
from model.predictor import ModelRef
from model.transforms import MEAN, SIZE, STD, Floats, Pixels

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchPredictor:
    """PraNet in PyTorch, batch-norm folded, channels last, on a CPU or a CUDA GPU."""

    slots = 1

    def __init__(self, checkpoint: Checkpoint, device: str, precision: str) -> None:
        self.model = ModelRef(
            checkpoint.model_id,
            checkpoint.sha256,
            "torch",
            device_name(torch.device(device)),
            precision,
            checkpoint.presence,
        )
        self._device = torch.device(device)
        network = Normalised(fold_batch_norm(checkpoint.network()))
        self._network = network.to(self._device, DTYPES[precision]).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

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
