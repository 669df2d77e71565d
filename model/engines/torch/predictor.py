"""Predictor for CPUs in PyTorch."""

import numpy as np
import torch
from torch import Tensor

from model.cores import usable_cores
from model.engines.predictor import ModelRef
from model.network.normalisation import Normalised
from model.rewrites.folding import fold_batch_norm
from model.transforms import SIZE, Floats, Pixels
from model.weights import checkpoint
from model.weights.weights_file import WeightsFile


def limit_threads(threads: int | None = None) -> None:
    """Let PyTorch compute with so many threads at most, by default one for each usable core: it knows no quota."""
    torch.set_num_threads(min(torch.get_num_threads(), threads or usable_cores()))


# On a CPU the service uses float32 only; the others show what a GPU's arithmetic does to published weights.
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchPredictor:
    """PraNet in PyTorch with folded batch-norm and channels-last layout; in float32 the reference of every engine."""

    slots = 1

    def __init__(
        self, weights: WeightsFile, precision: str, input_size: int = SIZE, threads: int | None = None
    ) -> None:
        limit_threads(threads)
        identity = (weights.model_id, weights.sha256)
        self.model = ModelRef(*identity, "torch", "cpu", precision, weights.presence, input_size)
        network = Normalised(fold_batch_norm(checkpoint.of_file(weights).network()))
        self._network = network.to(DTYPES[precision]).to(memory_format=torch.channels_last)

    def warm_up(self, max_batch_size: int) -> None:
        """Run one frame and the largest batch; only the very first run is slower."""
        side = self.model.input_size
        for count in (1, max_batch_size):
            self.predict(np.zeros((count, 3, side, side), np.uint8))

    def predict(self, frames: Pixels) -> Floats:
        """Map uint8 RGB (N, 3, S, S) to float32 logits of S3 (N, S, S)."""
        with torch.inference_mode():
            logits: Tensor = self._network(torch.from_numpy(frames))
            return logits[:, 0].float().numpy()
