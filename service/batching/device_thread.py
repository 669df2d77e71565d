"""One daemon thread on which a device is driven, one call after another.

An executor would do, but the interpreter waits for an executor's threads when it exits: one hung call would keep
the process from stopping. This thread can be left behind.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class DeviceThread(threading.Thread):
    """Runs calls in order, off the event loop; ``start`` it before use, ``stop`` it when done."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def stop(self) -> None:
        """Let the thread end after the calls already given; does not wait."""
        self._calls.put(None)

    def submit(self, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Run ``function(*args)`` on the thread; the future belongs to the running event loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._calls.put(lambda: _call(loop, future, function, args))
        return future

    def run(self) -> None:
        """Carry out the calls until ``stop``."""
        while (call := self._calls.get()) is not None:
            call()
            del call  # with it the batch, and the network that ran it


async def in_device_thread(function: Callable[..., T], *args: Any) -> T:
    """Run ``function(*args)`` on a thread of its own, which is left behind when the caller is cancelled."""
    thread = DeviceThread(function.__name__)
    thread.start()
    try:
        return await thread.submit(function, *args)
    finally:
        thread.stop()


def _call(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[T], function: Callable[..., T], args: tuple[Any, ...]
) -> None:
    try:
        result = function(*args)
    except BaseException as error:  # whatever it was, somebody waits for this future
        _deliver(loop, future, error=error)
    else:
        _deliver(loop, future, result=result)


def _deliver(
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[T],
    result: T | None = None,
    error: BaseException | None = None,
) -> None:
    def settle() -> None:
        if future.done():  # abandoned meanwhile
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]  # T itself may be None
        else:
            future.set_exception(error)

    with contextlib.suppress(RuntimeError):  # the loop closed while an abandoned call went on
        loop.call_soon_threadsafe(settle)
