"""``pranet health``, as a container's health check calls it."""

import asyncio
from pathlib import Path

import pytest

from service.commands.main import main
from service.runtime import Phase
from tests.support.certificates import Authority
from tests.support.serving import Running, serving


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
    said = capfd.readouterr().err
    assert "does not answer" in said
    assert "the same PRANET_ variables" in said


async def test_it_asks_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with serving() as running:
        assert await health(running) == 0


async def test_it_speaks_tls_where_the_server_does_also_after_a_change_of_the_file(tmp_path: Path) -> None:
    """The server uses the certificate as it was until SIGHUP, and on if the new one cannot be used."""
    authority = Authority(tmp_path)
    cert, key = authority.issue("ward-3.example")  # not the name under which a health check asks
    flags = ("--tls-cert", str(cert), "--tls-key", str(key))
    async with serving(tls_cert=cert, tls_key=key) as running:
        assert await health(running, *flags) == 0
        for file, other in zip((cert, key), Authority(tmp_path).issue("ward-3.example"), strict=True):
            other.replace(file)
        assert await health(running, *flags) == 0
        cert.write_text("half a certifi")
        assert await health(running, *flags) == 0
        assert await health(running) == 1


@pytest.mark.parametrize("believed", [True, False])
async def test_a_server_that_wants_certificates_is_shown_its_own(tmp_path: Path, believed: bool) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("127.0.0.1")
    clients = authority if believed else Authority(tmp_path)
    tls = {"tls_cert": cert, "tls_key": key, "tls_client_ca": clients.pem}
    flags = [text for name, path in tls.items() for text in (f"--{name.replace('_', '-')}", str(path))]
    async with serving(**tls) as running:
        assert await health(running, *flags) == (0 if believed else 1)


async def test_it_is_1_where_another_protocol_is_spoken(capfd: pytest.CaptureFixture[str]) -> None:
    async with serving() as running:
        assert await asyncio.to_thread(main, ["health", "--port", str(running.grpc_port)]) == 1
    assert "does not answer" in capfd.readouterr().err
