"""Reads the frames of the caller, from an iterator that may block, fail, or yield something that is not a frame."""

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Generator, Iterable, Iterator
from typing import Any, TypeVar

from pranet_client.errors import InvalidInput

STOP_SECONDS = 1.0  # how long the end of a stream waits for a thread that reads a frame; it ends with that frame
ONE_PICTURE = (bytes, bytearray, memoryview, str)  # iterable, but surely not meant as frames

T = TypeVar("T")


def iterate(items: AsyncIterable[T] | Iterable[T]) -> AsyncIterator[T]:
    """Return an iterator for the event loop; a plain iterable is read in a thread.

    Raises:
        InvalidInput: ``items`` cannot be iterated, or is a single picture.

    """
    if isinstance(items, AsyncIterable):
        return aiter(items)
    if isinstance(items, ONE_PICTURE) or not isinstance(items, Iterable):
        raise InvalidInput(
            f"{type(items).__name__} is no iterable of pictures; give a list, a generator or an async generator, "
            "also for a single picture: [picture]"
        )
    return in_thread(items)


@contextlib.asynccontextmanager
async def opened(items: AsyncIterable[T] | Iterable[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Iterate inside the block; at its end, close the iterator if it can be closed.

    Raises:
        InvalidInput: see ``iterate``.

    """
    iterator = iterate(items)
    try:
        yield iterator
    finally:
        if close := getattr(iterator, "aclose", None):
            with contextlib.suppress(Exception):  # the caller has its outcome already
                await close()


async def in_thread(items: Iterable[T]) -> AsyncIterator[T]:
    """Read an iterable that may block, such as a camera, in a thread of its own, one item whenever one is wanted.

    The thread ends with the iteration; if it is inside a read at that time, after that read. It closes a generator.
    """
    loop = asyncio.get_running_loop()
    wanted: queue.SimpleQueue[asyncio.Future[list[T]] | None] = queue.SimpleQueue()
    ended = asyncio.Event()

    def call(function: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(function, *arguments)

    def read() -> None:
        iterator: Iterator[T] | None = None
        try:
            while (item := wanted.get()) is not None:
                try:
                    iterator = iter(items) if iterator is None else iterator
                    call(_answer, item, [next(iterator)], None)
                except StopIteration:
                    call(_answer, item, [], None)
                except BaseException as error:  # also KeyboardInterrupt: nobody would see it in this thread
                    call(_answer, item, [], error)
            if isinstance(iterator, Generator):
                with contextlib.suppress(Exception):  # the stream has its outcome already
                    iterator.close()
        finally:
            call(ended.set)

    threading.Thread(target=read, name="pranet-frames", daemon=True).start()
    try:
        while True:
            future: asyncio.Future[list[T]] = loop.create_future()
            wanted.put(future)
            if not (found := await future):
                return
            yield found[0]
    finally:
        wanted.put(None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await ended.wait()


def _answer(future: "asyncio.Future[list[T]]", found: list[T], error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(found)
    else:
        future.set_exception(error)


class Source:
    """Reads frames, and keeps the error that ended them.

    Args:
        frames: what the caller gave.
        put: takes one item once there is room for it; its error ends the source like one of the iterator.
        end: is called at the end.

    """

    def __init__(
        self,
        frames: AsyncIterable[T] | Iterable[T],
        put: Callable[[T], Coroutine[Any, Any, None]],
        end: Callable[[], None],
    ) -> None:
        self.error: BaseException | None = None
        self.failed = asyncio.Event()
        self._reading = asyncio.create_task(self._read(frames, put, end))

    def fail(self, error: BaseException) -> None:
        """End the stream with an error."""
        self.error = self.error or error
        self.failed.set()

    def check(self) -> None:
        """Raise the error that ended the source, if any."""
        if self.error is not None:
            raise self.error

    async def failure(self, seconds: float) -> None:
        """Wait so long, or until the source has failed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.failed.wait()

    async def close(self) -> None:
        """Stop reading, and close the iterator if it can be closed."""
        self._reading.cancel()
        await asyncio.wait([self._reading])

    async def _read(
        self,
        frames: AsyncIterable[T] | Iterable[T],
        put: Callable[[T], Coroutine[Any, Any, None]],
        end: Callable[[], None],
    ) -> None:
        task = asyncio.current_task()
        try:
            async with opened(frames) as iterator:
                async for item in iterator:
                    await put(item)
        except BaseException as error:
            if task and task.cancelling():  # by ``close``
                return
            self.fail(error)  # any other, also a CancelledError or KeyboardInterrupt of the iterator itself
        end()
