"""An event loop in a thread of its own, for callers without one."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from pranet_client.errors import CLOSED, ClientError

T = TypeVar("T")
Outcome = Future[tuple[T | None, BaseException | None]]
CANCELLED = (None, asyncio.CancelledError("cancelled before it began"))


class LoopThread:
    """Runs coroutines for threads that wait for them."""

    def __init__(self) -> None:
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run(started)), name="pranet-client", daemon=True
        )
        self._closed = False
        self._thread.start()
        self._loop = started.result()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return what a coroutine returns; if the wait is interrupted, cancel it, and wait until it has ended.

        Raises:
            ClientError: the loop is closed.
            BaseException: what the coroutine raised.

        """
        outcome: Outcome[T] = Future()
        task: Future[asyncio.Task[None]] = Future()

        def ended(_: asyncio.Task[None]) -> None:
            if not outcome.done():
                outcome.set_result(CANCELLED)

        def start() -> None:
            task.set_result(self._loop.create_task(_into(outcome, coroutine)))
            task.result().add_done_callback(ended)

        try:
            if threading.current_thread() is self._thread:
                raise RuntimeError("it would wait for itself")
            self._loop.call_soon_threadsafe(start)
        except RuntimeError:
            coroutine.close()
            raise ClientError(CLOSED) from None
        try:
            result, error = outcome.result()
        except BaseException:  # such as KeyboardInterrupt
            self._loop.call_soon_threadsafe(lambda: task.result().cancel())
            outcome.result()
            raise
        if isinstance(error, asyncio.CancelledError) and self._closed:  # ``close`` ended the loop meanwhile
            raise ClientError(CLOSED) from None
        if error is not None:
            raise error
        return result  # type: ignore[return-value]

    def close(self) -> None:
        """End the loop with everything in it, and its thread."""
        self._closed = True
        with contextlib.suppress(RuntimeError):  # it is closed
            self._loop.call_soon_threadsafe(self._stop.set)
        if threading.current_thread() is not self._thread:  # where the garbage collector may call this
            self._thread.join()

    async def _run(self, started: "Future[asyncio.AbstractEventLoop]") -> None:
        self._stop = asyncio.Event()
        started.set_result(asyncio.get_running_loop())
        await self._stop.wait()


async def _into(outcome: Outcome[T], coroutine: Coroutine[Any, Any, T]) -> None:
    """Keep every error as a value: a KeyboardInterrupt would end the loop, with all other callers in wait."""
    try:
        outcome.set_result((await coroutine, None))
    except BaseException as error:
        outcome.set_result((None, error))
