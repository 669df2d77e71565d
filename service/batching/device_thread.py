"""Threads on which devices are driven: a pool of one thread each, which can be left behind in a call that hangs.

The interpreter waits for such a thread when it exits, so a process that left one behind ends with ``os._exit``.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def device_thread(name: str) -> ThreadPoolExecutor:
    """Return one thread that runs calls in order; ``shutdown(wait=False)`` lets it end after those already given."""
    return ThreadPoolExecutor(1, thread_name_prefix=name)


async def in_device_thread(function: Callable[..., T], *args: object) -> T:
    """Run ``function(*args)`` on a thread of its own, which is left behind when the caller is cancelled."""
    thread = device_thread(function.__name__)
    try:
        return await asyncio.get_running_loop().run_in_executor(thread, function, *args)
    finally:
        thread.shutdown(wait=False)
