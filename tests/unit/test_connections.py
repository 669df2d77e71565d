"""How far clients have read, as servers and the kernel tell it."""

import asyncio
import socket
from typing import Any
from unittest.mock import Mock

import pytest
import uvloop

from service.calls import Calls
from service.clients import awaited
from service.clients.awaited import READER
from service.clients.connections import Connection, connection_of
from service.clients.readers import Readers
from service.drain import _Left
from service.rpc.call import peer_name
from tests.support.patching import Patches


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


NAMES = {
    ("192.0.2.1", 50000): "ipv4:192.0.2.1:50000",
    ("::ffff:192.0.2.1", 50000, 0, 0): "ipv4:192.0.2.1:50000",
    ("2001:db8::1", 50000, 0, 0): "ipv6:%5B2001:db8::1%5D:50000",
    ("fe80::1%eth0", 50000, 0, 4): "ipv6:%5Bfe80::1%254%5D:50000",
}


@pytest.mark.parametrize("address", NAMES, ids=str)
def test_a_connection_is_named_as_grpc_names_its_client(address: tuple[str | int, ...]) -> None:
    """As it was seen with grpcio 1.85."""
    assert peer_name(Mock(getpeername=lambda: address)) == NAMES[address]


LOOKS = {  # taken, left and held, until all is read
    "what is written after the answers is not waited for": [(0, 100, 0), (100, 100, 0)],
    "what the server still holds is part of the answers": [(0, 100, 900), (900, 100, 0), (1000, 0, 0)],
    "a kernel that does not tell what was taken tells when all was": [(0, 100, 0), (0, 10, 0), (0, 0, 0)],
}


@pytest.mark.parametrize("looks", LOOKS.values(), ids=LOOKS)
def test_a_client_is_waited_for_until_it_has_read_its_answers(looks: list[tuple[int, int, int]]) -> None:
    readers, waits = Readers(), []
    seen = [Connection("client", *each, had_work=True, abort=lambda: None) for each in looks]
    readers.expect(seen[0])
    for each in seen:
        readers.look({"client": each})
        waits.append(bool(readers))
    assert waits == [True] * (len(looks) - 1) + [False]


def test_who_has_stalled_when_the_time_is_over_counts_as_stalled(patched: Patches) -> None:
    unread = Connection("client", 0, 100, 0, had_work=True, abort=lambda: None)
    calls = Calls(*4 * (Mock(),), timeout_seconds=1.0)
    calls.sources.append(lambda: iter([unread]))
    left = _Left(calls)
    assert left.look()
    patched(awaited, "STALLED_SECONDS", 0.0)
    left.cut_off()
    assert +left.held_up == {READER: 1}
