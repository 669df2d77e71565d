"""The interface of every engine: a network on a device, with warm-up and one batched call."""

from dataclasses import dataclass
from typing import Protocol

from model.errors import UserError
from model.presence import Presence
from model.transforms import SIZE, Floats, Pixels


class DeviceError(UserError):
    """The requested device, engine or precision is not available; the message says what to use instead."""


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Identifies the weights behind an answer, and the engine, device, precision and input size that run them."""

    model_id: str
    weights_sha256: str
    engine: str
    device: str
    precision: str
    presence: Presence | None = None  # calibration of the presence score; None if the weights have none
    input_size: int = SIZE  # side of the network's square input, pixels


class Predictor(Protocol):
    """A network on a device; ``predict`` may be called from ``slots`` threads at once."""

    model: ModelRef
    slots: int  # batches that may be in flight at once

    def warm_up(self, max_batch_size: int) -> None:
        """Run every batch size that will be served, so that no request waits for first-run work."""

    def predict(self, frames: Pixels) -> Floats:
        """Map uint8 RGB (N, 3, S, S) to float32 logits of S3 (N, S, S), S the model's ``input_size``. Thread-safe."""
