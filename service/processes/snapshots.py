"""What each process last said of itself, which outlives it, and how the others ask it to say so anew."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence

HEAD = struct.Struct("QQ")  # how many texts have been written, and the length of the last one
STARTS = (4096, 2**32)  # where texts start, in turn: each is written beside the one before it; the file is sparse
ASK, ANSWER = b"?", b"!"


class Snapshots:
    """One file in memory and one bell for each process; the parent makes them, and those that it forks inherit them."""

    def __init__(self, processes: int) -> None:
        self._files = [os.memfd_create(f"pranet-{index}") for index in range(processes)]
        for file in self._files:
            os.ftruncate(file, HEAD.size)
        self._bells = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(processes)]
        for bell in (end for pair in self._bells for end in pair):
            bell.setblocking(False)
        self._answered = [asyncio.Event() for _ in range(processes)]

    def close(self) -> None:
        """Close all files and bells."""
        for file in self._files:
            os.close(file)
        for bell in (end for pair in self._bells for end in pair):
            bell.close()

    def read(self, index: int) -> bytes:
        """Return the last text of a process; empty if there is none.

        It needs no lock, which a process that is stopped would keep: while the head stays as it is, so does the text.
        """
        file = self._files[index]
        head = os.pread(file, HEAD.size, 0)
        while True:
            count, length = HEAD.unpack(head)
            text = os.pread(file, length, STARTS[count % 2])
            before, head = head, os.pread(file, HEAD.size, 0)
            if head == before:
                return text

    def write(self, index: int, text: bytes) -> None:
        """Replace the text of this process, wholly or not at all."""
        file = self._files[index]
        count = 1 + HEAD.unpack(os.pread(file, HEAD.size, 0))[0]
        written = 0
        while written < len(text):
            written += os.pwrite(file, text[written:], STARTS[count % 2] + written)
        os.pwrite(file, HEAD.pack(count, len(text)), 0)

    @contextlib.contextmanager
    def answering(self, index: int, text: Callable[[], bytes]) -> Iterator[None]:
        """Write the text of this process inside the block whenever another one asks, and once more at its end."""
        bell = self._bells[index][1]
        loop = asyncio.get_running_loop()

        def hear() -> None:
            with contextlib.suppress(BlockingIOError):
                kind, other = struct.unpack("cB", bell.recv(2))
                if kind == ASK:
                    self.write(index, text())
                    self._ring(other, ANSWER, index)
                else:
                    self._answered[other].set()

        loop.add_reader(bell, hear)
        try:
            yield
        finally:
            loop.remove_reader(bell)
            self.write(index, text())

    async def ask(self, asker: int, others: Sequence[int], seconds: float) -> set[int]:
        """Ask other processes for their texts; return those that have written a new one in time."""
        for index in others:
            self._answered[index].clear()
            self._ring(index, ASK, asker)
        waiting = {asyncio.ensure_future(self._answered[index].wait()): index for index in others}
        if not waiting:
            return set()
        try:
            done, _ = await asyncio.wait(waiting, timeout=seconds)
        finally:  # also where the asker is cancelled
            for each in waiting:
                each.cancel()
        return {waiting[each] for each in done}

    def _ring(self, index: int, kind: bytes, sender: int) -> None:
        with contextlib.suppress(BlockingIOError):  # it hears nothing, and has been asked often enough
            self._bells[index][0].send(struct.pack("cB", kind, sender))
