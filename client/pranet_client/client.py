"""The client for programs without an event loop."""

import math
import weakref
from collections.abc import AsyncIterable, Generator, Iterable
from types import TracebackType
from typing import Self

from pranet_client.async_client import DEFAULT_TARGET, DEFAULT_URL, AsyncClient, Segmented
from pranet_client.connection import Reply, VideoFrame
from pranet_client.credentials import NO_ACCESS, Access
from pranet_client.loop_thread import LoopThread
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb


class Client:
    """Calls one service. Use it as ``with``, or ``close`` it; it runs an event loop in a thread.

        with Client() as client:
            png = client.segment(Path("frame.jpg").read_bytes()).content
            for reply in client.stream(frames):          # an iterable of VideoFrame
                print(reply.frame.frame_id, reply.outcome, reply.age_seconds)

        Client("https://host:8000", "host:8001", Access(token, ca=Path("ca.pem")))     # with a token and TLS

    Arguments and errors are those of ``AsyncClient``.
    """

    def __init__(self, url: str = DEFAULT_URL, target: str = DEFAULT_TARGET, access: Access = NO_ACCESS) -> None:
        self._client = AsyncClient(url, target, access)
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

    def segment(self, image: bytes, **query: str | float) -> Segmented:
        """Segment one encoded picture; see ``AsyncClient.segment``."""
        return self._loop.call(self._client.segment(image, **query))

    def stream(
        self,
        frames: AsyncIterable[VideoFrame] | Iterable[VideoFrame],
        config: pb.StreamConfig | None = None,
        until: float = math.inf,
    ) -> Generator[Reply, None, None]:
        """Stream frames and yield one reply for each; see ``AsyncClient.stream``."""
        replies = self._client.stream(frames, config, until)

        async def following() -> Reply | None:  # begins the generator inside the loop, which then also ends it
            return await anext(replies, None)

        try:
            while (reply := self._loop.call(following())) is not None:
                yield reply
        finally:
            if self._closing.alive:  # otherwise ``close`` has ended the stream
                self._loop.call(replies.aclose())


def _close(client: AsyncClient, loop: LoopThread) -> None:
    try:
        loop.call(client.aclose())
    finally:
        loop.close()
