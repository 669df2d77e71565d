"""The four side outputs of one picture, S6 to S3, which show how reverse attention refines the first guess.

They are for looking at, so they have no part in the batches: a float32 network of their own is loaded on first use, and
works on one picture at a time.
"""

import asyncio
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from model import transforms
from model.engines.predictor import ModelRef
from model.errors import UserError
from model.transforms import Pixels
from model.weights import weights_file
from service.errors import NotReady, QueueFull
from service.frames import codec, regions
from service.frames.regions import Box

if TYPE_CHECKING:
    from model.engines.torch.side_outputs import FourMaps


class SideOutputs:
    """Answers ``output=maps``."""

    def __init__(self, weights: Path, *, max_image_pixels: int) -> None:
        self._weights = weights
        self._max_image_pixels = max_image_pixels
        self._loaded: FourMaps | None = None
        self._busy = threading.Lock()  # held by the thread at work, which goes on when its client leaves

    async def render(self, image: bytes, roi: str, model: ModelRef) -> bytes:
        """Return a grey PNG with the probabilities of S6, S5, S4 and S3 side by side, each of the picture's size.

        Args:
            image: an encoded picture.
            roi: region of interest.
            model: the weights that answer now; maps are made of the same ones.

        Raises:
            QueueFull: another picture is at work.
            NotReady: the weights file does not hold these weights any more.
            ServiceError: the picture or the region is refused.

        """
        return await asyncio.to_thread(self._render, image, roi, model.weights_sha256)

    def forget(self) -> None:
        """Let go of the network, whose weights answer no more."""
        self._loaded = None

    def _render(self, image: bytes, roi: str, sha256: str) -> bytes:
        if not self._busy.acquire(blocking=False):
            raise QueueFull("maps are made of one picture at a time; retry")
        try:
            picture = codec.decode(image, self._max_image_pixels)
            box = regions.locate(picture, roi)
            maps = self._network(sha256).of(transforms.to_input(regions.crop(picture, box)))
            return codec.encode_png(np.hstack([_in_frame(each, box, picture.size) for each in maps]))
        finally:
            self._busy.release()

    def _network(self, sha256: str) -> "FourMaps":
        from model.engines.torch.side_outputs import FourMaps  # takes seconds: it brings PyTorch in

        if self._loaded is None or self._loaded.sha256 != sha256:
            try:
                weights = weights_file.identify(self._weights)
                if weights.sha256 != sha256:
                    raise NotReady(
                        "the weights file was replaced, and maps wait until it is loaded (SIGHUP); retry then"
                    )
                self._loaded = FourMaps(weights)
            except UserError as error:
                raise NotReady(f"maps are not to be had ({error}); ask for another output") from error
        return self._loaded


def _in_frame(levels: Pixels, box: Box, size: tuple[int, int]) -> Pixels:
    """Place a map (352, 352) of the box into the whole picture; outside of it is 0."""
    whole = np.zeros((size[1], size[0]), np.uint8)
    resized = transforms.upsample(levels.astype(np.float32), box.width, box.height)
    whole[box.y : box.y + box.height, box.x : box.x + box.width] = np.rint(resized)
    return whole
