"""A predictor that works when the test lets it."""

import asyncio
import threading

import numpy as np

from fakes import PATIENCE
from model.engines.predictor import ModelRef
from model.transforms import Floats, Pixels


class GatedPredictor:
    """Works on a batch only when the test lets it; takes red for polyp."""

    model = ModelRef("fake", "0" * 64, "fake", "cpu", "fp32")
    slots = 1

    def __init__(self) -> None:
        self.permits = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.frames = 0

    def warm_up(self, max_batch_size: int) -> None: ...

    def predict(self, frames: Pixels) -> Floats:
        self.begun.release()
        if not self.permits.acquire(timeout=PATIENCE):
            raise TimeoutError
        self.frames += len(frames)
        return frames[:, 0].astype(np.float32) - 128

    async def has_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.acquire, timeout=PATIENCE)

    def open(self) -> None:
        """Let everything through from now on."""
        self.permits.release(10_000)
