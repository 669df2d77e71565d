"""A device that doubles numbers, and items for it."""

import asyncio
import threading
from collections.abc import Sequence

from service.batching.batcher import Batcher
from service.batching.queue import Entry

POISON = -1
FOREVER = 60.0


class Device:
    """Doubles numbers; raises on POISON; can be held, and remembers every batch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        self.open.set()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.entered.release()
        assert self.open.wait(FOREVER)
        if POISON in items:
            raise ValueError("poison")
        return [2 * item for item in items]

    async def is_entered(self) -> None:
        await asyncio.to_thread(self.entered.acquire)


def soon() -> float:
    return asyncio.get_running_loop().time() + FOREVER


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(10):
        await asyncio.sleep(0)


def submit(batcher: Batcher[int, int], item: int, **kwargs: object) -> asyncio.Task[int]:
    async def result() -> int:
        entry: Entry[int, int] = Entry(item=item, **{"deadline": soon(), **kwargs})  # type: ignore[arg-type]
        await batcher.submit(entry)
        assert entry.result is not None
        return entry.result

    return asyncio.create_task(result())
