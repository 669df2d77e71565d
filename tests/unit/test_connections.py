"""How far clients have read, as servers and the kernel tell it."""

import asyncio
import socket
from typing import Any

import uvloop

from service.clients.connections import Connection, connection_of
from service.clients.readers import Readers


class Accepted(asyncio.Protocol):
    """The near end of a connection."""

    def __init__(self) -> None:
        self.opened, self.closed = asyncio.Event(), asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.opened.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed.set()


def test_a_connection_that_its_client_has_closed_is_unknown_in_the_loop_that_serves() -> None:
    async def closed() -> None:
        near = Accepted()
        server = await asyncio.get_running_loop().create_server(lambda: near, "127.0.0.1", 0)
        async with server:
            with socket.create_connection(server.sockets[0].getsockname()):
                await near.opened.wait()
                assert connection_of("client", near.transport, had_work=True)
            await near.closed.wait()
            assert connection_of("client", near.transport, had_work=True) is None

    uvloop.run(closed())


def connection(taken: int, left: int, held: int = 0) -> dict[object, Connection]:
    return {"client": Connection("client", taken, left, held, had_work=True, abort=lambda: None)}


def test_what_is_written_after_the_answers_is_not_waited_for() -> None:
    readers = Readers()
    readers.expect(connection(0, 100)["client"])
    readers.look(connection(0, 100))
    assert readers
    readers.look(connection(100, 100))
    assert not readers


def test_what_the_server_still_holds_is_part_of_the_answers() -> None:
    readers = Readers()
    readers.expect(connection(0, 100, held=900)["client"])
    readers.look(connection(0, 100, held=900))
    readers.look(connection(900, 100))
    assert readers
    readers.look(connection(1000, 0))
    assert not readers


def test_a_kernel_that_does_not_tell_what_was_taken_tells_when_all_was() -> None:
    readers = Readers()
    readers.expect(connection(0, 100)["client"])
    readers.look(connection(0, 100))
    readers.look(connection(0, 10))
    assert readers
    readers.look(connection(0, 0))
    assert not readers
