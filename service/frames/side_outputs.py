"""The four side outputs of a picture, S6 to S3, which show how reverse attention refines the first prediction.

They are for inspection only, and therefore not batched: a separate float32 network is loaded on first use, and runs on
one frame at a time.
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
    """Computes the maps of ``output=maps`` with the weights file of the service."""

    def __init__(self, weights: Path) -> None:
        self._weights = weights
        self._loaded: FourMaps | None = None
        self._busy = threading.Lock()  # held by the working thread, which continues when its client disconnects

    async def add_to(self, frame: Frame) -> None:
        """Set ``frame.maps`` to the probabilities of S6, S5, S4 and S3, each uint8 (352, 352).

        The maps come from the same weights as the frame's result.

        Raises:
            QueueFull: the maps of another frame are being computed.
            NotReady: the weights file no longer holds these weights.

        """
        assert frame.item is not None
        assert frame.result is not None
        frame.maps = await asyncio.to_thread(self._maps, frame.item, frame.result.model.weights_sha256)

    def forget(self) -> None:
        """Free the network, after a reload of the weights."""
        self._loaded = None

    def _maps(self, pixels: Pixels, sha256: str) -> list[Pixels]:
        if not self._busy.acquire(blocking=False):
            raise QueueFull("another request for maps is in progress; retry")
        try:
            return self._network(sha256).of(pixels)
        finally:
            self._busy.release()

    def _network(self, sha256: str) -> "FourMaps":
        from model.engines.torch.side_outputs import FourMaps  # imports PyTorch, which takes seconds

        if self._loaded is None or self._loaded.sha256 != sha256:
            try:
                weights = weights_file.identify(self._weights)
                if weights.sha256 != sha256:
                    raise NotReady(
                        "the weights file was replaced but not loaded yet; retry after the operator has sent SIGHUP"
                    )
                self._loaded = FourMaps(weights)
            except UserError as error:
                raise NotReady(f"maps cannot be computed ({error}); request another output") from error
        return self._loaded
