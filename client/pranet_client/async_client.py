"""The client for programs with an event loop: pictures over REST, video over gRPC with reconnection."""

import asyncio
import contextlib
import itertools
import math
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import grpc
import httpx

from pranet_client.answers import BatchAnswer, Info, Segmentation
from pranet_client.backlog import Backlog
from pranet_client.connection import Connection, Reply, to_sent
from pranet_client.credentials import NO_ACCESS, Access
from pranet_client.errors import UNREACHABLE, InvalidInput, RequestFailed
from pranet_client.inputs import Image, to_file
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pictures import RawPicture, VideoFrame
from pranet_client.reconnection import Reconnection, hides_status
from pranet_client.rest import Rest, problem
from pranet_client.sources import Source, opened

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_TARGET = "127.0.0.1:8001"
GRPC_PORT = 8001
LAST_PORT = 65_535
TIMEOUT_SECONDS = 60.0
PNG = b"\x89PNG"
RETRIES = 2

Frame: TypeAlias = "Image | RawPicture | VideoFrame"


class AsyncClient:
    """Calls one service; use it as ``async with``, or ``aclose`` it.

    Args:
        url: the REST interface, such as ``http://127.0.0.1:8000``.
        target: HOST:PORT of the gRPC interface, for streams; by default port 8001 of the same host.
        access: token and TLS files, if the service requires them.
        timeout: seconds that one picture may take, with all attempts; of a batch, each wait for an answer.
        retries: how often a request is sent again if its connection was closed, or the service answered 429 or 503; it
            waits as long as ``Retry-After`` says. A service that is not there is not waited for.

    Raises:
        InvalidInput: ``url`` is no address.
        TlsError: a file that ``access`` names cannot be used.

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
        self._http = access.http(_checked(url), timeout=timeout)
        self._rest = Rest(self._http, timeout, retries)
        host = self._http.base_url.host
        self._target = target or f"{f'[{host}]' if ':' in host else host}:{GRPC_PORT}"
        self._access = access

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def segment(self, image: Image, *, threshold: float | None = None, roi: str | None = None) -> Segmentation:
        """Segment one picture.

        Args:
            image: a path, the bytes of a picture file, an array (H, W, 3) of uint8 in RGB, or a Pillow image.
            threshold: probability above which a pixel is polyp, 0 to 1; by default the service's own.
            roi: ``full``, ``auto`` (without the black surround), or ``x,y,w,h`` in pixels.

        Raises:
            InvalidInput: ``image`` is no picture.
            RequestFailed: the service refused the picture, failed on it, was too slow, or cannot be reached.

        """
        query = _query(output="json", threshold=threshold, roi=roi)
        file = await asyncio.to_thread(to_file, image)
        return await self._rest.parsed(Segmentation.parse, "POST", "/segment", params=query, content=file)

    async def render(
        self,
        image: Image,
        output: Literal["mask", "probability", "overlay", "maps"] = "mask",
        *,
        threshold: float | None = None,
        roi: str | None = None,
        depth: Literal[8, 16] | None = None,
    ) -> bytes:
        """Segment one picture and return the PNG that the service makes of it, which needs no NumPy here.

        Args:
            image: see ``segment``.
            output: what the PNG shows; see docs/rest.md.
            threshold: see ``segment``.
            roi: see ``segment``.
            depth: bits of a probability.

        Raises:
            ClientError: see ``segment``.

        """
        query = _query(output=output, threshold=threshold, roi=roi, depth=depth)
        file = await asyncio.to_thread(to_file, image)
        answer = await self._rest.request("POST", "/segment", params=query, content=file)
        if not answer.content.startswith(PNG):
            raise self._rest.foreign(answer)
        return answer.content

    async def batch(
        self,
        images: AsyncIterable[Image] | Iterable[Image],
        *,
        threshold: float | None = None,
        roi: str | None = None,
    ) -> AsyncGenerator[BatchAnswer, None]:
        """Segment many pictures in one request, and yield an answer for each, in order, as soon as it is ready.

        All pictures are read, and held in memory, before the first is sent.

        Args:
            images: pictures as ``segment`` takes them; a plain iterable is read in a thread.
            threshold: see ``segment``.
            roi: see ``segment``.

        Raises:
            InvalidInput: one of ``images`` is no picture, or they cannot be iterated.
            RequestFailed: the batch as a whole was refused, failed or broke off.
            BaseException: what ``images`` itself raised.

        """
        async with opened(images) as iterator:
            contents = [await asyncio.to_thread(to_file, image) async for image in iterator]
        if not contents:
            return
        files = [("file", (str(number), content)) for number, content in enumerate(contents)]
        query = _query(output="json", threshold=threshold, roi=roi)
        async with self._rest.opened("POST", "/segment/batch", params=query, files=files) as answer:
            answered = 0
            async for line in answer.aiter_lines():
                yield self._rest.understood(answer, _batch_answer, line)
                answered += 1
        if answered < len(contents):  # a proxy may end a body by closing the connection
            what = f"the answer broke off after {answered} of {len(contents)} pictures; send the others again"
            raise RequestFailed(UNREACHABLE, what)

    async def info(self) -> Info:
        """Return the weights that answer now, and the limits of the service.

        Raises:
            RequestFailed: the service cannot be reached, or refuses.

        """
        return await self._rest.parsed(Info.parse, "GET", "/info")

    async def stream(
        self,
        frames: AsyncIterable[Frame] | Iterable[Frame],
        config: pb.StreamConfig | None = None,
        until: float = math.inf,
    ) -> AsyncGenerator[Reply, None]:
        """Stream frames and yield one reply for each, in order.

        If the connection breaks, the client connects again. Frames without an answer are then sent again under
        ``POLICY_EVERY``; under ``POLICY_LATEST`` their outcome is ``lost``.

        The caller may be slow: frames are sent as fast as replies are taken. Under ``POLICY_LATEST`` a newer frame then
        replaces the one that waits to be sent, whose outcome is ``stale``; also while there is no connection. At most
        some 64 frames are in memory, or 256 under ``POLICY_LATEST``.

        Args:
            frames: pictures as ``segment`` takes them, or ``VideoFrame`` and ``RawPicture``, in the order in which they
                were captured. A bare picture is numbered from 0 and counts as captured when it is read. A plain
                iterable is read in a thread, so it may block. A generator is closed at the end.
            config: policy, threshold, smoothing; by default those of the service.
            until: a time of ``time.monotonic``, seconds, after which the client does not reconnect.

        Raises:
            RequestFailed: the service refuses the stream, does not answer within the first 10 s, or disconnected and
                was not back by ``until``.
            InvalidInput: a frame is of a wrong type, or ``frames`` cannot be iterated.
            BaseException: what ``frames`` itself raised. The service has a second to answer the frames before it; the
                outcome of those that it does not answer, or that were not sent yet, is ``lost``.

        """
        config = config or pb.StreamConfig()
        live = config.policy != pb.POLICY_EVERY
        backlog, numbers = Backlog(newest_only=live), itertools.count()
        source = Source(frames, lambda frame: backlog.put(to_sent(frame, next(numbers))), backlog.end)
        reconnection = Reconnection(self._target, until)
        try:
            while True:
                connection = Connection(self._access, self._target, config, source, backlog)
                try:
                    async with contextlib.aclosing(connection.replies()) as replies:
                        async for reply in replies:
                            yield reply
                    break
                except grpc.aio.AioRpcError as error:
                    source.check()
                    if connection.answered:
                        reconnection.succeeded()
                    pause, asks_again = reconnection.failed(error), hides_status(error)
                if live and not asks_again:
                    backlog.lose()
                if backlog.finished:  # nothing is left that another connection could answer
                    break
                pausing = asyncio.create_task(source.failure(pause))
                pausing.add_done_callback(lambda _: backlog.wake())
                try:
                    while (waiting := await backlog.take(pausing)) is not None:
                        yield waiting
                finally:
                    pausing.cancel()
                source.check()
        except BaseException as error:
            if error is not source.error:
                if isinstance(error, RequestFailed):  # the caller may not have taken all that was answered before
                    await source.close()
                    while (last := backlog.taken()) is not None:
                        yield last
                raise
        finally:
            await source.close()
        for last in backlog.lose_all():
            yield last
        source.check()


def _checked(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL()
    if parsed.scheme not in ("http", "https") or not parsed.host or (parsed.port or 0) > LAST_PORT:
        raise InvalidInput(f"{url.rpartition('@')[2]} is not an address; give it as http://HOST:PORT")
    return url


def _batch_answer(body: dict[str, Any]) -> BatchAnswer:
    done = Segmentation.parse(body["segmentation"]) if "segmentation" in body else None
    return BatchAnswer(body["index"], done, None if done else problem(body["error"]))


def _query(**options: str | float | None) -> dict[str, str | float]:
    return {name: value for name, value in options.items() if value is not None}
