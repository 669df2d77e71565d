"""Little time for those who dawdle."""

from collections.abc import AsyncIterator

import pytest

from service import drain, runtime
from service.clients import awaited
from service.http import protocol as http_protocol
from tests.support.patching import Patches
from tests.support.serving import Running, serving
from tests.support.slow_clients.sending import SHORT_SECONDS


@pytest.fixture(autouse=True)
def hurried(patched: Patches) -> None:
    for name in ("HEAD_SECONDS", "DISCARD_SECONDS"):
        patched(http_protocol, name, SHORT_SECONDS)
    patched(runtime, "UNREAD_SECONDS", SHORT_SECONDS)


@pytest.fixture
def impatient(patched: Patches) -> None:
    """Let a drain look often, and give up soon those who stall."""
    patched(awaited, "STALLED_SECONDS", SHORT_SECONDS)
    patched(drain, "LOOK_SECONDS", SHORT_SECONDS / 10)


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with serving() as running:
        yield running
