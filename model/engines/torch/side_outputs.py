"""The four side outputs of PraNet: the global map S6, and S5, S4 and S3 after each reverse attention."""

import torch

from model.engines.torch.predictor import limit_threads
from model.network.normalisation import normalise
from model.transforms import Pixels
from model.weights import checkpoint
from model.weights.weights_file import WeightsFile


class FourMaps:
    """A float32 network on the CPU that returns all four side outputs."""

    def __init__(self, weights: WeightsFile) -> None:
        self.sha256 = weights.sha256
        limit_threads()
        self._network = checkpoint.of_file(weights).network()

    def of(self, pixels: Pixels) -> list[Pixels]:
        """Map uint8 RGB (3, 352, 352) to S6, S5, S4 and S3 as probabilities, each uint8 (352, 352), 255 for 1."""
        with torch.inference_mode():
            outputs = self._network.maps(normalise(torch.from_numpy(pixels)[None]))
        return [torch.sigmoid(logits[0, 0]).mul(255).round().byte().numpy() for logits in outputs]
