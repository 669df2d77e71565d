"""A PACS that stores all that it is sent."""

from collections.abc import Iterator

import pytest

from tests.support.servers.stow import Stow, stow


@pytest.fixture
def pacs() -> Iterator[Stow]:
    with stow() as running:
        yield running
