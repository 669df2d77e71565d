"""The client for programs without an event loop."""

import asyncio
import math
import queue
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from types import TracebackType
from typing import Self

from pranet_client.async_client import DEFAULT_TARGET, DEFAULT_URL, AsyncClient, Segmented
from pranet_client.connection import Reply, VideoFrame
from pranet_client.credentials import NO_ACCESS, Access
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb


class Client:
    """Calls one service; use it as ``with``. It runs an event loop in a separate thread.

        with Client() as client:
            png = client.segment(Path("frame.jpg").read_bytes()).content
            for reply in client.stream(frames):          # an iterable of VideoFrame
                print(reply.frame.frame_id, reply.outcome, reply.age_seconds)

        Client("https://host:8000", "host:8001", Access(token, ca=Path("ca.pem")))     # with a token and TLS

    Arguments and errors are those of ``AsyncClient``.
    """

    def __init__(self, url: str = DEFAULT_URL, target: str = DEFAULT_TARGET, access: Access = NO_ACCESS) -> None:
        self._address = (url, target, access)

    def __enter__(self) -> Self:
        self._client = AsyncClient(*self._address)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pranet-client", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._client.__aexit__(None, None, None), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def segment(self, image: bytes, **query: str | float) -> Segmented:
        """Segment one encoded picture; see ``AsyncClient.segment``."""
        return asyncio.run_coroutine_threadsafe(self._client.segment(image, **query), self._loop).result()

    def stream(
        self, frames: Iterable[VideoFrame], config: pb.StreamConfig | None = None, until: float = math.inf
    ) -> Iterator[Reply]:
        """Stream frames and yield one reply for each; see ``AsyncClient.stream``. A thread reads ``frames``."""
        replies: queue.SimpleQueue[Reply | None] = queue.SimpleQueue()

        async def run() -> None:
            try:
                async for reply in self._client.stream(in_thread(frames), config, until):
                    replies.put(reply)
            finally:
                replies.put(None)

        running = asyncio.run_coroutine_threadsafe(run(), self._loop)
        try:
            while (reply := replies.get()) is not None:
                yield reply
            running.result()
        finally:
            running.cancel()


async def in_thread(frames: Iterable[VideoFrame]) -> AsyncIterator[VideoFrame]:
    """Read an iterable that may block, such as a camera, without blocking the event loop."""
    iterator = iter(frames)
    while (frame := await asyncio.to_thread(next, iterator, None)) is not None:
        yield frame
