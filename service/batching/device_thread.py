"""Device threads: thread pools of one thread each, which can be abandoned when a call hangs.

A normal interpreter exit would wait for an abandoned thread, so the process exits with ``os._exit``.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def device_thread(name: str) -> ThreadPoolExecutor:
    """Return a pool of one thread; after ``shutdown(wait=False)`` it ends once the calls submitted before are done."""
    return ThreadPoolExecutor(1, thread_name_prefix=name)


async def in_device_thread(function: Callable[..., T], *args: object) -> T:
    """Run ``function(*args)`` on a new thread, which is abandoned if the caller is cancelled."""
    thread = device_thread(function.__name__)
    try:
        return await asyncio.get_running_loop().run_in_executor(thread, function, *args)
    finally:
        thread.shutdown(wait=False)
