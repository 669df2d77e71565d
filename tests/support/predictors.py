"""Fake predictors, whose answers are known beforehand: one answers at once, one when the test lets it."""

import asyncio
import threading
from collections.abc import Callable

import numpy as np

from model.engines.predictor import ModelRef
from model.transforms import Floats, Pixels

PATIENCE = 20  # seconds before a test that waits for an event gives up; nothing asserts how long anything takes


class RedPredictor:
    """Takes what is bright in the red channel for a polyp, so that every mask is known from its picture.

    ``before`` sees each batch first, and may raise or block; what ``after`` returns is answered instead of the logits.
    """

    model = ModelRef("red-00000000", "0" * 64, "fake", "cpu", "fp32")

    def __init__(
        self,
        before: Callable[[Pixels], None] = lambda frames: None,
        after: Callable[[Pixels, Floats], Floats] = lambda frames, logits: logits,
        slots: int = 1,
        warm_up: Callable[[int], None] = lambda max_batch_size: None,
    ) -> None:
        self.slots = slots
        self.batch_sizes: list[int] = []
        self.warm_up = warm_up
        self._before = before
        self._after = after

    def predict(self, frames: Pixels) -> Floats:
        """Map uint8 RGB (N, 3, 352, 352) to logits (N, 352, 352)."""
        self.batch_sizes.append(len(frames))
        self._before(frames)
        return self._after(frames, (frames[:, 0].astype(np.float32) - 127.5) / 16)


class BluePredictor(RedPredictor):
    """Other weights: takes what is bright in the blue channel for a polyp."""

    model = ModelRef("blue-11111111", "1" * 64, "fake", "cpu", "fp32")

    def predict(self, frames: Pixels) -> Floats:
        """Map uint8 RGB (N, 3, 352, 352) to logits (N, 352, 352)."""
        return super().predict(frames[:, ::-1])


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


class WhiteMaps:
    """In place of the network of ``output=maps``: four white maps, at once."""

    @staticmethod
    def of(pixels: object) -> list[np.ndarray]:
        """Return the maps, each uint8 (352, 352)."""
        return [np.full((352, 352), 255, np.uint8)] * 4
