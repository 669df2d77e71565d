"""``pranet health``, as a container's health check calls it."""

import asyncio

import pytest

from fakes import Running, serving
from service.cli import main
from service.core import Phase


async def health(running: Running, *flags: str) -> int:
    return await asyncio.to_thread(main, ["health", "--port", str(running.port), *flags])


async def test_it_is_0_while_new_work_is_taken() -> None:
    async with serving() as running:
        assert await health(running) == 0
        assert await health(running, "--host", "0.0.0.0") == 0


async def test_it_is_1_while_none_is_taken_and_says_why(capfd: pytest.CaptureFixture[str]) -> None:
    async with serving() as running:
        running.service.readiness.enter(Phase.DRAINING)
        assert await health(running) == 1
    assert "urn:pranet:error:draining" in capfd.readouterr().err


async def test_it_is_1_where_nothing_listens(capfd: pytest.CaptureFixture[str]) -> None:
    async with serving() as running:
        pass
    assert await health(running) == 1
    assert "does not answer" in capfd.readouterr().err


async def test_it_asks_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with serving() as running:
        assert await health(running) == 0
