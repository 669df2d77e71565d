"""The client for programs without an event loop."""

import math
import weakref
from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable
from types import TracebackType
from typing import Literal, Self, TypeVar

from pranet_client.answers import BatchAnswer, Info, Segmentation
from pranet_client.async_client import DEFAULT_URL, RETRIES, TIMEOUT_SECONDS, AsyncClient, Frame
from pranet_client.connection import Reply
from pranet_client.credentials import NO_ACCESS, Access
from pranet_client.inputs import Image
from pranet_client.loop_thread import LoopThread
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb

T = TypeVar("T")


class Client:
    """Calls one service. Use it as ``with``, or ``close`` it; it runs an event loop in a thread.

        with Client() as client:
            mask = client.segment("frame.jpg").mask
            for reply in client.stream(frames):          # an iterable, such as a generator that reads a camera
                print(reply.frame.frame_id, reply.outcome, reply.age_seconds)

        Client("https://host:8000", "host:8001", Access(token, ca=Path("ca.pem")))     # with a token and TLS

    Arguments and errors are those of ``AsyncClient``.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        target: str | None = None,
        access: Access = NO_ACCESS,
        *,
        timeout: float = TIMEOUT_SECONDS,
        retries: int = RETRIES,
    ) -> None:
        self._client = AsyncClient(url, target, access, timeout=timeout, retries=retries)
        self._loop = LoopThread()
        self._closing = weakref.finalize(self, _close, self._client, self._loop)  # also at the end of the program

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End streams that are open, and all connections."""
        self._closing()

    def segment(self, image: Image, *, threshold: float | None = None, roi: str | None = None) -> Segmentation:
        """Segment one picture; see ``AsyncClient.segment``."""
        return self._loop.call(self._client.segment(image, threshold=threshold, roi=roi))

    def render(
        self,
        image: Image,
        output: Literal["mask", "probability", "overlay", "maps"] = "mask",
        *,
        threshold: float | None = None,
        roi: str | None = None,
        depth: Literal[8, 16] | None = None,
    ) -> bytes:
        """Return the PNG that the service makes of one picture; see ``AsyncClient.render``."""
        return self._loop.call(self._client.render(image, output, threshold=threshold, roi=roi, depth=depth))

    def batch(
        self,
        images: AsyncIterable[Image] | Iterable[Image],
        *,
        threshold: float | None = None,
        roi: str | None = None,
    ) -> Generator[BatchAnswer, None, None]:
        """Segment many pictures in one request; see ``AsyncClient.batch``."""
        return self._follow(self._client.batch(images, threshold=threshold, roi=roi))

    def info(self) -> Info:
        """Return the weights that answer now, and the limits of the service; see ``AsyncClient.info``."""
        return self._loop.call(self._client.info())

    def stream(
        self,
        frames: AsyncIterable[Frame] | Iterable[Frame],
        config: pb.StreamConfig | None = None,
        until: float = math.inf,
    ) -> Generator[Reply, None, None]:
        """Stream frames and yield one reply for each; see ``AsyncClient.stream``."""
        return self._follow(self._client.stream(frames, config, until))

    def _follow(self, answers: AsyncGenerator[T, None]) -> Generator[T, None, None]:
        async def following() -> T | None:  # begins the generator inside the loop, which then also ends it
            return await anext(answers, None)

        try:
            while (answer := self._loop.call(following())) is not None:
                yield answer
        finally:
            if self._closing.alive:  # otherwise ``close`` has ended it
                self._loop.call(answers.aclose())


def _close(client: AsyncClient, loop: LoopThread) -> None:
    try:
        loop.call(client.aclose())
    finally:
        loop.close()
