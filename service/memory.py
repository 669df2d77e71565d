"""Settings of the memory allocator of glibc; with another C library, nothing here has an effect."""

import asyncio
import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8  # parameters of mallopt(3)
KEPT_BYTES = 16 * 2**20  # free memory at the end of a heap that stays with the process
HEAP_BYTES = 8 * 2**20  # larger blocks go back to the kernel as soon as they are freed
ARENAS = 2  # heaps, of all threads
LAST_BATCH_SECONDS = 10.0  # after which no batch uses weights that were replaced

_libc = ctypes.CDLL(None)


def limit_freed_memory() -> None:
    """Keep the memory of one frame for the next, and give that of replaced weights back.

    By default, glibc raises both limits whenever a larger block is freed, up to 64 MiB. Then blocks of new weights lie
    between others in its heaps, and a process grew from 430 to 620 MB over eight reloads; with fixed limits it stays.

    By default, it also makes eight heaps a core. New weights are loaded in a new thread each time, which takes the next
    heap: with a reload a minute, the heaps grew for half an hour, until each of them could hold a network.
    """
    if (mallopt := getattr(_libc, "mallopt", None)) is not None:
        mallopt(TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(MMAP_THRESHOLD, HEAP_BYTES)
        mallopt(ARENA_MAX, ARENAS)


def trim_later() -> None:
    """Give free pages within the heaps back once no batch uses weights that were replaced; see malloc_trim(3).

    By itself, glibc gives back only the end of a heap, and blocks that stay keep the free pages below them.
    """
    loop = asyncio.get_running_loop()
    loop.call_later(LAST_BATCH_SECONDS, loop.run_in_executor, None, trim)


def trim() -> None:
    """Give free pages within the heaps back to the kernel; takes some 50 ms, during which no thread gets memory."""
    if (malloc_trim := getattr(_libc, "malloc_trim", None)) is not None:
        malloc_trim(KEPT_BYTES)
