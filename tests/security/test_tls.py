"""TLS and certificates of clients, over REST, gRPC and WebSocket; nothing older than TLS 1.2 is spoken."""

import asyncio
import contextlib
import signal
import socket
import ssl
import threading
import warnings
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import httpx
import pytest
import trustme
from cryptography import x509

from pranet_client.credentials import NO_ACCESS
from pranet_client.errors import TlsError
from service import app
from service.access.tls import ServerTls
from service.access.tokens import Token, digest_of
from service.http import server as http_server
from service.rpc import server as rpc
from tests.support import processes
from tests.support.callers import TRANSPORTS, UNREACHABLE, Ask, rest
from tests.support.certificates import Authority
from tests.support.patching import Patches
from tests.support.predictors import RedPredictor
from tests.support.serving import PATIENCE, Running, serving, until

VERSIONS = {  # whether it may be spoken
    "TLSv1": False,
    "TLSv1_1": False,
    "TLSv1_2": True,
    "TLSv1_3": True,
}

HALF_A_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
async def secured(authority: Authority) -> AsyncIterator[Running]:
    async with serving(**authority.server()) as running:
        yield running


def speaks(port: int, version: ssl.TLSVersion) -> bool:
    """Tell whether a server speaks this very version, with a client that would take any cipher of it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.set_alpn_protocols(["h2", "http/1.1"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the old versions
        context.minimum_version = context.maximum_version = version
    with socket.create_connection(("127.0.0.1", port)) as plain:
        try:
            with context.wrap_socket(plain) as talking:
                return talking.version() == version.name.replace("_", ".")
        except (ssl.SSLError, ConnectionError):
            return False


@contextlib.asynccontextmanager
async def lenient_server(authority: Authority) -> AsyncIterator[int]:
    """Serve whatever version the client wants."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("127.0.0.1"))
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("name", VERSIONS)
async def test_only_tls_1_2_and_later_is_spoken(name: str, secured: Running, authority: Authority) -> None:
    version = ssl.TLSVersion[name]
    async with lenient_server(authority) as lenient:
        assert await asyncio.to_thread(speaks, lenient, version), "the client itself cannot speak it"
    for port in (secured.port, secured.grpc_port):
        assert await asyncio.to_thread(speaks, port, version) is VERSIONS[name]


@pytest.mark.parametrize("ask", TRANSPORTS, ids=lambda ask: ask.__name__)
async def test_only_clients_that_believe_its_authority_talk_to_it(
    ask: Ask, secured: Running, authority: Authority, tmp_path: Path
) -> None:
    assert await ask(secured, authority.client()) == "ok"
    assert await ask(secured, Authority(tmp_path).client()) == UNREACHABLE
    assert await ask(secured, NO_ACCESS) == UNREACHABLE  # without TLS


@pytest.mark.parametrize("ask", TRANSPORTS, ids=lambda ask: ask.__name__)
async def test_with_an_authority_for_clients_only_their_certificates_let_in(
    ask: Ask, authority: Authority, tmp_path: Path
) -> None:
    people = Authority(tmp_path)
    certificates = {
        "right": (people.issue("client"), "ok"),
        "expired": (people.expired(), UNREACHABLE),
        "of another authority": (authority.issue("client"), UNREACHABLE),
        "absent": ((None, None), UNREACHABLE),
    }
    async with serving(**authority.server(), tls_client_ca=people.pem) as it:
        found = {name: await ask(it, authority.client(own)) for name, (own, _) in certificates.items()}
        assert found == {name: expected for name, (_, expected) in certificates.items()}
        assert it.metric("pranet_decodes_total") == 1


@pytest.mark.parametrize("ask", TRANSPORTS, ids=lambda ask: ask.__name__)
async def test_a_certificate_does_not_replace_the_token(ask: Ask, authority: Authority, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(Token("good", digest_of("good")).line())
    own = authority.issue("client")
    async with serving(**authority.server(), tls_client_ca=authority.pem, api_tokens_file=tokens) as it:
        assert await ask(it, authority.client(own)) == "unauthenticated"
        assert await ask(it, authority.client(own, "good")) == "ok"


async def test_who_does_not_speak_tls_gets_nothing(secured: Running) -> None:
    async with httpx.AsyncClient(trust_env=False) as plain:
        with pytest.raises(httpx.TransportError):
            await plain.get(f"http://127.0.0.1:{secured.port}/livez")


async def test_a_silent_handshake_holds_up_nobody(secured: Running, authority: Authority) -> None:
    for port in (secured.port, secured.grpc_port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await rest(secured, authority.client()) == "ok"
        writer.close()


async def test_a_handshake_that_does_not_end_is_given_up(authority: Authority, patched: Patches) -> None:
    for server in (http_server, rpc):
        patched(server, "HANDSHAKE_SECONDS", 0.3)
    async with serving(**authority.server()) as it:
        for port in (it.port, it.grpc_port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(HALF_A_HELLO)
            async with asyncio.timeout(PATIENCE):
                assert await reader.read() == b""
            writer.close()


def test_a_file_that_cannot_be_used_is_named(authority: Authority, tmp_path: Path) -> None:
    cert, key = authority.issue("127.0.0.1")
    _, other_key = authority.issue("127.0.0.1")
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    for wrong in (
        ServerTls(tmp_path / "none.pem", key),
        ServerTls(cert, other_key),
        ServerTls(cert, key, empty),
        ServerTls(cert, key, tmp_path / "none.pem"),
    ):
        with pytest.raises(TlsError, match=r"none\.pem|empty\.pem|cert\.pem"):
            wrong.configuration()


def put(identity: tuple[Path, Path], settings: dict[str, Path]) -> None:
    """Write a certificate and its key where a server looks for its own."""
    for new, place in zip(identity, (settings["tls_cert"], settings["tls_key"]), strict=True):
        new.replace(place)


@pytest.mark.parametrize("ask", TRANSPORTS, ids=lambda ask: ask.__name__)
async def test_a_renewed_certificate_is_shown_from_the_next_handshake_on(
    ask: Ask, authority: Authority, tmp_path: Path
) -> None:
    settings, later = authority.server(), Authority(tmp_path)
    async with serving(**settings) as it:
        put(later.issue("127.0.0.1", key_type=trustme.KeyType.RSA), settings)  # of another kind than the one before
        assert await ask(it, authority.client()) == "ok"  # nobody said that there is a new one
        assert it.service.tls is not None
        assert it.service.tls.renew()
        assert await ask(it, later.client()) == "ok"
        assert await ask(it, authority.client()) == UNREACHABLE


@pytest.mark.parametrize("ask", TRANSPORTS, ids=lambda ask: ask.__name__)
@pytest.mark.parametrize("wrong", ["another key", "no certificate", "nothing"])
async def test_a_broken_pair_leaves_the_old_one_in_use_and_says_so_once(
    ask: Ask, wrong: str, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    settings = authority.server()
    async with serving(**settings) as it:
        if wrong == "another key":
            authority.issue("127.0.0.1")[1].replace(settings["tls_key"])
        elif wrong == "no certificate":
            settings["tls_cert"].write_text("not yet written")
        else:
            settings["tls_cert"].unlink()
        assert it.service.tls is not None
        assert not it.service.tls.renew()
        (line,) = [each.getMessage() for each in caplog.records if each.name == "service.access.tls"]
        assert "the old one stays in use" in line
        assert str(settings["tls_cert"]) in line
        assert await ask(it, authority.client()) == "ok"


async def test_a_certificate_whose_disk_does_not_answer_is_named_and_holds_up_no_new_weights(
    authority: Authority, patched: Patches, caplog: pytest.LogCaptureFixture
) -> None:
    answers = threading.Event()
    async with serving(load=RedPredictor, **authority.server()) as it:
        patched(ServerTls, "context", lambda _: answers.wait(PATIENCE))
        patched(app, "RENEW_SECONDS", 0.05)
        try:
            async with asyncio.timeout(PATIENCE / 2):
                await app._reload(it.service)
            assert it.metric("pranet_weights_reloads_total", {"outcome": "taken"}) == 1
            assert it.metric("pranet_certificates_current") == 0
            assert "the old one stays in use" in caplog.text
            assert await rest(it, authority.client()) == "ok"
        finally:
            answers.set()


async def test_metrics_say_when_the_first_certificate_of_each_file_ends_and_that_a_renewal_failed(
    authority: Authority,
) -> None:
    end = datetime(2040, 5, 6, 7, 8, 9, tzinfo=UTC)
    cert, key = authority.issue("127.0.0.1", not_after=end)
    later = authority.ca.cert_pem.bytes()
    cert.write_bytes(cert.read_bytes() + later)  # the chain's other certificate ends later
    async with serving(tls_cert=cert, tls_key=key, tls_client_ca=authority.pem) as it:
        ends = [
            it.metric("pranet_certificate_end_timestamp_seconds", {"certificate": c}) for c in ("server", "client-ca")
        ]
        of_authority = x509.load_pem_x509_certificate(later).not_valid_after_utc
        assert ends == [end.timestamp(), of_authority.timestamp()]
        assert it.metric("pranet_certificates_current") == 1
        whole = cert.read_bytes()
        cert.write_text("not yet written")
        assert it.service.tls is not None
        assert not it.service.tls.renew()
        assert it.metric("pranet_certificates_current") == 0
        assert it.metric("pranet_certificate_end_timestamp_seconds", {"certificate": "server"}) == end.timestamp()
        cert.write_bytes(whole)
        assert it.service.tls.renew()
        assert it.metric("pranet_certificates_current") == 1


@pytest.mark.parametrize("ask", TRANSPORTS, ids=lambda ask: ask.__name__)
async def test_with_the_certificate_the_authorities_of_clients_are_renewed(
    ask: Ask, authority: Authority, tmp_path: Path
) -> None:
    people, successors = Authority(tmp_path), Authority(tmp_path)
    clients = [authority.client(signer.issue("client")) for signer in (people, successors)]
    file = tmp_path / "people.pem"
    file.write_bytes(people.pem.read_bytes())
    async with serving(**authority.server(), tls_client_ca=file) as it:
        assert [await ask(it, client) for client in clients] == ["ok", UNREACHABLE]
        file.write_bytes(successors.pem.read_bytes())
        assert it.service.tls is not None
        assert it.service.tls.renew()
        assert [await ask(it, client) for client in clients] == [UNREACHABLE, "ok"]


@dataclass
class Returning:
    """A client that asks to go on with the session of its last visit; it leaves properly, so that servers keep it."""

    port: int
    context: ssl.SSLContext
    session: ssl.SSLSession | None = None

    def visit(self) -> str:
        """Tell how the server took this client: "new", "resumed" or "refused"."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as plain:
            try:
                with self.context.wrap_socket(plain, server_hostname="127.0.0.1", session=self.session) as talking:
                    talking.sendall(b"GET /livez HTTP/1.1\r\nHost: pranet\r\nConnection: close\r\n\r\n")
                    answer = b"".join(iter(lambda: talking.recv(4096), b""))
                    self.session, resumed = talking.session, bool(talking.session_reused)
                    talking.unwrap()
            except (ssl.SSLError, ConnectionError):
                return "refused"
        assert answer.startswith(b"HTTP/1.1 200")
        return "resumed" if resumed else "new"


@pytest.mark.parametrize("tickets", [True, False])
@pytest.mark.parametrize("name", [name for name, spoken in VERSIONS.items() if spoken])
async def test_who_is_no_longer_believed_does_not_come_back_by_a_session(
    name: str, tickets: bool, authority: Authority, tmp_path: Path
) -> None:
    people, file = Authority(tmp_path), tmp_path / "people.pem"
    file.write_bytes(people.pem.read_bytes())
    context = authority.client(people.issue("client"))._context()
    context.minimum_version = context.maximum_version = ssl.TLSVersion[name]
    if not tickets:
        context.options |= ssl.OP_NO_TICKET
    async with serving(**authority.server(), tls_client_ca=file) as it:
        client = Returning(it.port, context)
        assert [await asyncio.to_thread(client.visit) for _ in range(2)] == ["new", "resumed"]
        file.write_bytes(Authority(tmp_path).pem.read_bytes())
        assert it.service.tls is not None
        assert it.service.tls.renew()
        assert await asyncio.to_thread(client.visit) == "refused"


async def test_an_open_connection_outlives_the_renewal(authority: Authority) -> None:
    settings = authority.server()
    async with serving(**settings) as it, authority.client().http(f"https://127.0.0.1:{it.port}") as client:
        await client.get("/livez")
        put(authority.issue("127.0.0.1"), settings)
        assert it.service.tls is not None
        assert it.service.tls.renew()
        assert (await client.get("/livez")).status_code == 200


def shows(port: int, authority: Authority) -> bool:
    """Tell whether a server proves itself with a certificate of this authority."""
    context = ssl.create_default_context(cafile=authority.pem)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with socket.create_connection(("127.0.0.1", port)) as plain:
        try:
            context.wrap_socket(plain, server_hostname="127.0.0.1").close()
        except ssl.SSLCertVerificationError:
            return False
    return True


@pytest.mark.slow
async def test_sighup_renews_the_certificate_of_both_ports_and_keeps_it_when_the_next_is_broken(
    authority: Authority, tmp_path: Path
) -> None:
    settings, later, log = authority.server(), Authority(tmp_path), tmp_path / "log"
    flags = ("--tls-cert", settings["tls_cert"], "--tls-key", settings["tls_key"], "--maps", "false")
    with (
        log.open("w") as lines,
        processes.fake_server(*flags, stderr=lines, ca=authority.pem) as server,
    ):
        ports = [int(address.rpartition(":")[2]) for address in (server.url, server.grpc_address)]
        assert [shows(port, authority) for port in ports] == [True, True]
        put(later.issue("127.0.0.1"), settings)
        server.process.send_signal(signal.SIGHUP)
        await until(lambda: all(processes.everywhere(partial(shows, port, later)) for port in ports))
        settings["tls_cert"].write_text("not yet written")
        server.process.send_signal(signal.SIGHUP)
        await until(lambda: "the old one stays in use" in log.read_text())
        assert all(processes.everywhere(partial(shows, port, later)) for port in ports)
