"""TLS of both servers: 1.2 at least, forward secrecy and authenticated ciphers only."""

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from pranet_client.errors import TlsError
from pranet_client.tls import load_authorities, load_identity
from service.settings import Settings

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 10.0  # of TLS; of gRPC with what HTTP/2 begins with
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; all of TLS 1.3's are as good


@dataclass(frozen=True)
class ServerTls:
    """The TLS files of both servers, PEM."""

    cert: Path
    key: Path
    client_ca: Path | None = None  # None: clients need no certificate

    def context(self) -> ssl.SSLContext:
        """Return the context of REST and WebSocket.

        Raises:
            TlsError: a file cannot be used.

        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(CIPHERS)
        load_identity(context, self.cert, self.key)
        if self.client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
            load_authorities(context, self.client_ca)
        return context

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """Return the same for gRPC, whose library speaks TLS 1.2 and 1.3 only.

        Raises:
            TlsError: a file cannot be used.

        """
        self.context()  # gRPC itself would not say what is wrong with a file
        return grpc.ssl_server_certificate_configuration(
            [(self.key.read_bytes(), self.cert.read_bytes())],
            self.client_ca.read_bytes() if self.client_ca else None,
        )


class _Following(ssl.SSLContext):
    """Has each connection made by the newest context, where asyncio knows one context only.

    A connection that is handed over later, as its client says hello, has resumed a session by then: with the first
    context's keys, and so of clients that the newest one would not let in.
    """

    newest: Callable[[], ssl.SSLContext]

    def wrap_bio(self, *given: Any, **named: Any) -> ssl.SSLObject:
        """Begin a connection."""
        return self.newest().wrap_bio(*given, **named)


class RenewableTls:
    """What both servers speak TLS with: each connection takes what the files held when they were read last.

    Raises:
        TlsError: a file cannot be used.

    """

    def __init__(self, files: ServerTls) -> None:
        self._files = files
        self._context, self._configuration = files.context(), files.configuration()

    def renew(self) -> bool:
        """Read the files again, for connections from now on; tell whether they can be used. Else nothing changes."""
        try:
            context, configuration = self._files.context(), self._files.configuration()
        except (TlsError, OSError) as error:
            log.error("the new certificate is not taken, the old one stays in use (%s)", error)
            return False
        self._context, self._configuration = context, configuration
        log.warning("%s is in use from now on", self._files.cert)
        return True

    def context(self) -> ssl.SSLContext:
        """Return a context for REST and WebSocket by which each connection gets the newest one, from its beginning."""
        following = _Following(ssl.PROTOCOL_TLS_SERVER)
        following.newest = lambda: self._context
        return following

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials for gRPC, which asks for the newest configuration at each handshake."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration,
            lambda: self._configuration,
            require_client_authentication=self._files.client_ca is not None,
        )


def of_server(settings: Settings) -> ServerTls | None:
    """Return the files that the settings name; None where TLS is off."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return ServerTls(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
