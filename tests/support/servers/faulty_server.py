"""``pranet`` with its real network, which fails on pictures that are yellow all over, and hangs on lime ones.

It takes ``pranet``'s arguments. A call is given up after ``HANG_SECONDS``, and returns after ``HELD_SECONDS``.
"""

import os
import sys
import time

import numpy as np

from model.engines.predictor import Predictor
from model.transforms import Floats, Pixels
from service import app, runtime
from service.commands import main as cli
from service.settings import Settings
from tests.support.patching import patching

HANG_SECONDS = float(os.environ.get("HANG_SECONDS", "10"))
HELD_SECONDS = float(os.environ.get("HELD_SECONDS", "12"))
TOLERANCE = 8  # levels by which JPEG and resizing may change a colour
YELLOW, LIME = (255, 255, 0), (0, 255, 0)

load_predictor = runtime.load_predictor


class FaultyPredictor:
    """Hands all pictures to the network but those that it fails or hangs on."""

    def __init__(self, network: Predictor) -> None:
        self._network = network
        self.model, self.slots, self.warm_up = network.model, network.slots, network.warm_up

    def predict(self, frames: Pixels) -> Floats:
        """Map uint8 RGB (N, 3, S, S) to logits (N, S, S)."""
        if _any(frames, YELLOW):
            raise RuntimeError("injected")
        if _any(frames, LIME):
            time.sleep(HELD_SECONDS)
        return self._network.predict(frames)


def _any(frames: Pixels, colour: tuple[int, int, int]) -> bool:
    difference = np.abs(frames.astype(np.int16) - np.array(colour, np.int16)[:, None, None])
    return bool((difference <= TOLERANCE).all(axis=(1, 2, 3)).any())


def load(settings: Settings) -> Predictor:
    return FaultyPredictor(load_predictor(settings))


if __name__ == "__main__":
    with patching() as patched:
        patched(app, "load_predictor", load)
        patched(runtime, "_hang_seconds", lambda settings: HANG_SECONDS)
        patched(runtime, "load_predictor", load)  # of a reload
        sys.exit(cli.main())
