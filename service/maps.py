"""The four side outputs of one picture, S6 to S3, which show how reverse attention refines the first guess.

They are for looking at, so they have no part in the batches: a float32 network of their own is loaded on first use, and
works on one picture at a time.
"""

import asyncio
import threading
from pathlib import Path

import numpy as np
import torch

from model import checkpoint, transforms
from model.pranet import PraNet
from model.transforms import MEAN, STD, Pixels
from service import codec, regions
from service.errors import QueueFull
from service.regions import Box


class SideOutputs:
    """Answers ``output=maps``."""

    def __init__(self, weights: Path, *, max_image_pixels: int) -> None:
        self._weights = weights
        self._max_image_pixels = max_image_pixels
        self._network: PraNet | None = None
        self._busy = threading.Lock()  # held by the thread at work, which goes on when its client leaves

    async def render(self, image: bytes, roi: str) -> bytes:
        """Return a grey PNG with the probabilities of S6, S5, S4 and S3 side by side, each of the picture's size.

        Raises:
            QueueFull: another picture is at work.
            ServiceError: the picture or the region is refused.

        """
        return await asyncio.to_thread(self._render, image, roi)

    def _render(self, image: bytes, roi: str) -> bytes:
        if not self._busy.acquire(blocking=False):
            raise QueueFull("maps are made of one picture at a time; retry")
        try:
            picture = codec.decode(image, self._max_image_pixels)
            box = regions.locate(picture, roi)
            maps = self._maps(transforms.to_input(regions.crop(picture, box)))
            return codec.encode_png(np.hstack([_in_frame(each, box, picture.size) for each in maps]))
        finally:
            self._busy.release()

    def _maps(self, pixels: Pixels) -> list[Pixels]:
        """Map uint8 (3, 352, 352) to the probabilities of the four side outputs, 0 to 255."""
        if self._network is None:
            self._network = checkpoint.load(self._weights).network()
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        with torch.inference_mode():
            outputs = self._network.maps((torch.from_numpy(pixels)[None] / 255 - mean) / std)
        return [torch.sigmoid(logits[0, 0]).mul(255).round().byte().numpy() for logits in outputs]


def _in_frame(levels: Pixels, box: Box, size: tuple[int, int]) -> Pixels:
    """Place a map (352, 352) of the box into the whole picture; outside of it is 0."""
    whole = np.zeros((size[1], size[0]), np.uint8)
    resized = transforms.upsample(levels.astype(np.float32), box.width, box.height)
    whole[box.y : box.y + box.height, box.x : box.x + box.width] = np.rint(resized)
    return whole
