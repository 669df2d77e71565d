"""A network on a device: precision, warm-up, one batched call. The seam behind which engines change."""

from dataclasses import dataclass
from typing import Protocol

from model.errors import UserError
from model.presence import Presence
from model.transforms import Floats, Pixels


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
