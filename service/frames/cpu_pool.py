"""The threads that decode and encode pictures, one for each core, and whether they still answer."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from model.cores import usable_cores

T = TypeVar("T")

STUCK_SECONDS = 30.0  # the largest picture that MAX_IMAGE_PIXELS allows takes a few seconds on a slow core


class CpuPool(ThreadPoolExecutor):
    """A thread pool that knows how long its calls take; a thread cannot be stopped, so a stuck one stays stuck."""

    def __init__(self) -> None:
        self._size = usable_cores()
        super().__init__(self._size, thread_name_prefix="cpu")
        self._begun: dict[int, float] = {}  # thread -> begin of its call, seconds

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """Run a function in a thread of the pool."""
        return await asyncio.get_running_loop().run_in_executor(self, self._timed, function, *args)

    def answers(self) -> bool:
        """Tell whether a thread is free or took up its call within the last ``STUCK_SECONDS``."""
        limit = time.monotonic() - STUCK_SECONDS
        stuck = sum(begun < limit for begun in tuple(self._begun.values()))
        return stuck < self._size

    def _timed(self, function: Callable[..., T], *args: object) -> T:
        thread = threading.get_ident()
        self._begun[thread] = time.monotonic()
        try:
            return function(*args)
        finally:
            del self._begun[thread]
