"""The four side outputs of PraNet, S6 to S3: the global map and what each reverse attention makes of it."""

import torch

from model.network.normalisation import normalise
from model.transforms import Pixels
from model.weights import checkpoint
from model.weights.weights_file import WeightsFile


class FourMaps:
    """A float32 network on the CPU that answers with all four maps."""

    def __init__(self, weights: WeightsFile) -> None:
        self.sha256 = weights.sha256
        self._network = checkpoint.of_file(weights).network()

    def of(self, pixels: Pixels) -> list[Pixels]:
        """Map uint8 RGB (3, 352, 352) to the probabilities of S6, S5, S4 and S3, each uint8 (352, 352), 0 to 255."""
        with torch.inference_mode():
            outputs = self._network.maps(normalise(torch.from_numpy(pixels)[None]))
        return [torch.sigmoid(logits[0, 0]).mul(255).round().byte().numpy() for logits in outputs]
