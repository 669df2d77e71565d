"""A client in Python: pictures over REST, video over gRPC; it reconnects, and it measures.

    with Client() as client:
        png = client.segment(Path("frame.jpg").read_bytes()).content
        for reply in client.stream(frames):          # frames: an iterable of VideoFrame
            print(reply.frame.frame_id, reply.outcome, reply.age_seconds)

    Client("https://host:8000", "host:8001", Access(token, ca=Path("ca.pem")))     # with tokens and TLS

``AsyncClient`` has the same methods as coroutines.
"""

import asyncio
import logging
import math
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
import httpx

from service.client.connection import Connection, Reply, VideoFrame
from service.client.credentials import NO_ACCESS, Access
from service.client.errors import RequestFailed, is_final, of_call, unreachable
from service.pb.pranet.v1 import segmentation_pb2 as pb

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_TARGET = "127.0.0.1:8001"
FIRST_PAUSE_SECONDS = 0.25  # before a second connection; doubled with every further one in a row
LONGEST_PAUSE_SECONDS = 8.0
FIRST_REPLY_SECONDS = 10.0  # so long a stream that never had a reply tries to connect
TIMEOUT_SECONDS = 60.0  # of one picture

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Segmented:
    """The answer of one picture: a PNG, or JSON for ``output="json"``."""

    content: bytes
    headers: httpx.Headers

    def json(self) -> Any:
        """Return the parsed content of ``output="json"``."""
        return httpx.Response(200, content=self.content).json()


class AsyncClient:
    """Talks to one service; use it as ``async with``.

    Raises:
        TlsError: a file that ``access`` names cannot be used.

    """

    def __init__(self, url: str = DEFAULT_URL, target: str = DEFAULT_TARGET, access: Access = NO_ACCESS) -> None:
        self._rest = access.http(url, timeout=TIMEOUT_SECONDS)
        self._target = target
        self._access = access

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._rest.aclose()

    async def segment(self, image: bytes, **query: str | float) -> Segmented:
        """Segment one encoded picture; ``query`` as in REST: threshold, output, depth, roi.

        Raises:
            RequestFailed: the service refused or failed, or cannot be reached.

        """
        try:
            answer = await self._rest.post("/segment", content=image, params=query)
        except httpx.TransportError as error:
            raise unreachable(str(self._rest.base_url), str(error) or type(error).__name__) from error
        if answer.is_success:
            return Segmented(answer.content, answer.headers)
        problem = answer.json() if "json" in answer.headers.get("content-type", "") else {}
        cause = str(problem.get("type", f"http-{answer.status_code}")).removeprefix("urn:pranet:error:")
        raise RequestFailed(cause, str(problem.get("detail", answer.text)))

    async def stream(
        self, frames: AsyncIterable[VideoFrame], config: pb.StreamConfig | None = None, until: float = math.inf
    ) -> AsyncIterator[Reply]:
        """Stream frames; yields one reply for each, in order, and reconnects, until a time of ``time.monotonic``.

        What was on its way when a connection broke is sent again under ``POLICY_EVERY``, else it is lost.

        Raises:
            RequestFailed: the service refuses the stream, cannot be reached in the first 10 s, or no more by ``until``.

        """
        config = config or pb.StreamConfig()
        pending: asyncio.Queue[VideoFrame | None] = asyncio.Queue(1)
        on_their_way: deque[VideoFrame] = deque()
        feeding = asyncio.create_task(_feed(frames, pending))
        trying = _Trying(self._target, until)
        try:
            while True:
                connection = Connection(self._access, self._target, config, pending, on_their_way)
                try:
                    async for reply in connection.replies():
                        trying.succeeded()
                        yield reply
                    await feeding
                    return
                except grpc.aio.AioRpcError as error:
                    pause = trying.failed(error)
                if config.policy != pb.POLICY_EVERY:
                    while on_their_way:
                        frame = on_their_way.popleft()
                        yield Reply(frame, "lost", time.monotonic() - frame.captured, None)
                await asyncio.sleep(pause)
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)


class _Trying:
    """How often and how long a stream tries to connect."""

    def __init__(self, target: str, until: float) -> None:
        self._target = target
        self._until = until
        self._give_up = min(until, time.monotonic() + FIRST_REPLY_SECONDS)
        self._pause = FIRST_PAUSE_SECONDS
        self._replied = False  # on the last connection

    def succeeded(self) -> None:
        """Note that a reply came; a service that is known to be there is waited for."""
        self._give_up, self._pause, self._replied = self._until, FIRST_PAUSE_SECONDS, True

    def failed(self, error: grpc.aio.AioRpcError) -> float:
        """Return how long to wait before the next connection, seconds.

        Raises:
            RequestFailed: trying again would not help, or the time for it is over.

        """
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        if is_final(error) or time.monotonic() + pause > self._give_up:
            raise of_call(self._target, error) from error
        if self._replied:
            log.warning("the connection to %s broke (%s); trying to connect again", self._target, error.details())
            self._replied = False
        return pause


async def _feed(frames: AsyncIterable[VideoFrame], pending: asyncio.Queue[VideoFrame | None]) -> None:
    try:
        async for frame in frames:
            await pending.put(frame)
    except Exception:
        await pending.put(None)  # the stream ends in good order, and then this is raised
        raise
    await pending.put(None)


class Client:
    """The same for programs without an event loop: runs one in a thread of its own; use it as ``with``."""

    def __init__(self, url: str = DEFAULT_URL, target: str = DEFAULT_TARGET, access: Access = NO_ACCESS) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pranet-client", daemon=True)
        self._address = (url, target, access)

    def __enter__(self) -> Self:
        self._thread.start()
        self._client = AsyncClient(*self._address)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._client.__aexit__(None, None, None), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def segment(self, image: bytes, **query: str | float) -> Segmented:
        """As ``AsyncClient.segment``."""
        return asyncio.run_coroutine_threadsafe(self._client.segment(image, **query), self._loop).result()

    def stream(
        self, frames: Iterable[VideoFrame], config: pb.StreamConfig | None = None, until: float = math.inf
    ) -> Iterator[Reply]:
        """As ``AsyncClient.stream``; ``frames`` is read in a thread."""
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
