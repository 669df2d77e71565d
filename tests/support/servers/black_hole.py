"""A network in which a peer vanishes without a word."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from enum import StrEnum


class Loss(StrEnum):
    """What happens to bytes once the peer is gone."""

    SWALLOWED = "swallowed"  # acknowledged and thrown away, as by a middlebox whose far side died
    STUCK = "stuck"  # not even read, so that the sender's buffers fill, as by a peer that is suspended


@contextlib.asynccontextmanager
async def black_hole(target: int, loss: Loss) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """Forward TCP to a local port until the event is set; from then on sockets stay open and nothing gets through."""
    gone = asyncio.Event()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if not gone.is_set():
                writer.write(data)
                await writer.drain()
            elif loss is Loss.STUCK:
                await asyncio.Event().wait()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
        try:
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer), return_exceptions=True)
        finally:
            far_writer.close()
            writer.close()

    async with asyncio.TaskGroup() as tasks:
        accepted: list[asyncio.Task[None]] = []
        server = await asyncio.start_server(
            lambda reader, writer: accepted.append(tasks.create_task(connected(reader, writer))), "127.0.0.1"
        )
        try:
            yield server.sockets[0].getsockname()[1], gone
        finally:
            server.close()
            for task in accepted:
                task.cancel()
