"""The four side outputs of one picture, S6 to S3, which show how reverse attention refines the first guess.

They are for looking at, so they have no part in the batches: a float32 network of their own is loaded on first use, and
works on one frame at a time.
"""

import asyncio
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import UserError
from model.transforms import Pixels
from model.weights import weights_file
from service.errors import NotReady, QueueFull
from service.frames.frame import Frame

if TYPE_CHECKING:
    from model.engines.torch.side_outputs import FourMaps


class SideOutputs:
    """Makes the maps of ``output=maps``."""

    def __init__(self, weights: Path) -> None:
        self._weights = weights
        self._loaded: FourMaps | None = None
        self._busy = threading.Lock()  # held by the thread at work, which goes on when its client leaves

    async def add_to(self, frame: Frame) -> None:
        """Give a frame the probabilities of S6, S5, S4 and S3, each uint8 (352, 352), by the weights of its result.

        Raises:
            QueueFull: another frame is at work.
            NotReady: the weights file does not hold these weights any more.

        """
        assert frame.item is not None
        assert frame.result is not None
        frame.maps = await asyncio.to_thread(self._maps, frame.item, frame.result.model.weights_sha256)

    def forget(self) -> None:
        """Let go of the network, whose weights answer no more."""
        self._loaded = None

    def _maps(self, pixels: Pixels, sha256: str) -> list[Pixels]:
        if not self._busy.acquire(blocking=False):
            raise QueueFull("maps are made of one picture at a time; retry")
        try:
            return self._network(sha256).of(pixels)
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
                raise NotReady(f"maps cannot be made ({error}); ask for another output") from error
        return self._loaded
