"""The client for programs with an event loop: pictures over REST, video over gRPC with reconnection."""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
import httpx

from pranet_client.connection import Connection, Reply, Sent, VideoFrame, to_sent
from pranet_client.credentials import NO_ACCESS, Access
from pranet_client.errors import RequestFailed
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.reconnection import Reconnection
from pranet_client.sources import Source

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_TARGET = "127.0.0.1:8001"
TIMEOUT_SECONDS = 60.0  # of one picture


@dataclass(frozen=True, slots=True)
class Segmented:
    """The answer for one picture: a PNG, or JSON for ``output="json"``."""

    content: bytes
    headers: httpx.Headers

    def json(self) -> Any:
        """Return the parsed content of ``output="json"``."""
        return httpx.Response(200, content=self.content).json()


class AsyncClient:
    """Calls one service; use it as ``async with``.

    Args:
        url: the REST interface, such as ``http://127.0.0.1:8000``.
        target: HOST:PORT of the gRPC interface.
        access: token and TLS files, if the service requires them.

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
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._rest.aclose()

    async def segment(self, image: bytes, **query: str | float) -> Segmented:
        """Segment one encoded picture; ``query`` holds REST's parameters: threshold, output, depth, roi.

        Raises:
            RequestFailed: the service refused the picture, failed on it, or cannot be reached.

        """
        try:
            answer = await self._rest.post("/segment", content=image, params=query)
        except httpx.TransportError as error:
            raise RequestFailed.unreachable(str(self._rest.base_url), str(error) or type(error).__name__) from error
        if answer.is_success:
            return Segmented(answer.content, answer.headers)
        problem = answer.json() if "json" in answer.headers.get("content-type", "") else {}
        cause = str(problem.get("type", f"http-{answer.status_code}")).removeprefix("urn:pranet:error:")
        raise RequestFailed(cause, str(problem.get("detail", answer.text)))

    async def stream(
        self,
        frames: AsyncIterable[VideoFrame] | Iterable[VideoFrame],
        config: pb.StreamConfig | None = None,
        until: float = math.inf,
    ) -> AsyncGenerator[Reply, None]:
        """Stream frames and yield one reply for each, in order.

        If the connection breaks, the client connects again. Frames without an answer are then sent again under
        ``POLICY_EVERY``; under ``POLICY_LATEST`` their outcome is ``lost``.

        Args:
            frames: in the order in which they were captured. A plain iterable is read in a thread, so it may block.
                A generator is closed at the end.
            config: policy, threshold, smoothing; by default those of the service.
            until: a time of ``time.monotonic``, seconds, after which the client does not reconnect.

        Raises:
            RequestFailed: the service refuses the stream, does not answer within the first 10 s, or disconnected and
                was not back by ``until``.
            InvalidInput: a frame is of a wrong type, or ``frames`` cannot be iterated.
            BaseException: what ``frames`` itself raised. The service has a second to answer the frames before it.

        """
        config = config or pb.StreamConfig()
        unanswered: deque[Sent] = deque()
        source = Source(frames, to_sent)
        reconnection = Reconnection(self._target, until)
        try:
            while True:
                connection = Connection(self._access, self._target, config, source, unanswered)
                try:
                    async with contextlib.aclosing(connection.replies()) as replies:
                        async for reply in replies:
                            reconnection.succeeded()
                            yield reply
                    return
                except grpc.aio.AioRpcError as error:
                    source.check()
                    pause = reconnection.failed(error)
                if config.policy != pb.POLICY_EVERY:
                    while unanswered:
                        frame = unanswered.popleft().frame
                        yield Reply(frame, "lost", time.monotonic() - frame.captured, None)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(source.failed.wait(), pause)
                source.check()
        finally:
            await source.close()
