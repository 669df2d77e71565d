"""Device threads: thread pools of one thread each, which can be abandoned when a call hangs.

A normal interpreter exit would wait for an abandoned thread, so a process that has one exits with ``os._exit``.
"""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

PREFIX = "device-"  # of the threads' names
EXIT_SECONDS = 1.0  # for a thread that is only about to end


def device_thread(name: str) -> ThreadPoolExecutor:
    """Return a pool of one thread; after ``shutdown(wait=False)`` it ends once the calls submitted before are done."""
    return ThreadPoolExecutor(1, thread_name_prefix=PREFIX + name)


async def in_device_thread(function: Callable[..., T], *args: object) -> T:
    """Run ``function(*args)`` on a new thread, which is abandoned if the caller is cancelled."""
    thread = device_thread(function.__name__)
    try:
        return await asyncio.get_running_loop().run_in_executor(thread, function, *args)
    finally:
        thread.shutdown(wait=False)


def exit_if_abandoned(code: int) -> None:
    """End the process at once if a device thread still hangs; otherwise return, for a normal exit."""
    deadline = time.monotonic() + EXIT_SECONDS
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(PREFIX)]
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if any(thread.is_alive() for thread in threads):
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
