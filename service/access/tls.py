"""TLS for REST and gRPC: version 1.2 or later, with forward secrecy and authenticated encryption."""

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509

from pranet_client.errors import TlsError
from pranet_client.tls import load_authorities, load_identity
from service.settings import Settings

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 10.0  # for TLS; in gRPC it includes the start of HTTP/2
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # for TLS 1.2; every cipher of TLS 1.3 has these properties


@dataclass(frozen=True)
class ServerTls:
    """The files of TLS: certificate chain and key of the server, and authorities that sign client certificates."""

    cert: Path
    key: Path
    client_ca: Path | None = None  # None: clients need no certificate

    def check(self) -> None:
        """Check that all files can be used, without gRPC.

        Raises:
            TlsError: a file cannot be used.

        """
        self.context()
        self.ends()

    def context(self) -> ssl.SSLContext:
        """Return the SSL context for REST and WebSocket.

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

    def ends(self) -> dict[str, float]:
        """Return when the first certificate of each file ends, in seconds since 1970.

        Raises:
            TlsError: a file holds no certificate.

        """
        files = {"server": self.cert} | ({"client-ca": self.client_ca} if self.client_ca else {})
        return {name: _end(file) for name, file in files.items()}

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """Return the configuration for gRPC, whose library allows only TLS 1.2 and 1.3.

        Raises:
            TlsError: a file cannot be used.

        """
        self.context()  # checks the files; gRPC's own errors do not say what is wrong
        return grpc.ssl_server_certificate_configuration(
            [(self.key.read_bytes(), self.cert.read_bytes())],
            self.client_ca.read_bytes() if self.client_ca else None,
        )


def _end(file: Path) -> float:
    try:
        return min(each.not_valid_after_utc.timestamp() for each in x509.load_pem_x509_certificates(file.read_bytes()))
    except ValueError as error:
        raise TlsError(f"{file} holds a certificate that cannot be read ({error}); write it anew as PEM") from error


class _Following(ssl.SSLContext):
    """Starts every connection with the newest context, although asyncio accepts a single context.

    Switching contexts in the SNI callback is too late: by then a client may have resumed a session with the keys of the
    first context, even if the newest one would refuse it.
    """

    newest: Callable[[], ssl.SSLContext]

    def wrap_bio(self, *given: Any, **named: Any) -> ssl.SSLObject:
        """Start a connection with the newest context; takes the arguments of ``ssl.SSLContext.wrap_bio``."""
        return self.newest().wrap_bio(*given, **named)


class RenewableTls:
    """TLS of both servers with renewable certificates: a new connection uses the files as they were last read.

    Raises:
        TlsError: a file cannot be used.

    """

    def __init__(self, files: ServerTls) -> None:
        self._files = files
        self._context, self._configuration, self.ends = files.context(), files.configuration(), files.ends()
        self.current = True  # whether the files could be used when they were last read

    def renew(self) -> bool:
        """Read the files again for new connections; return False, and keep the old ones, if they cannot be used."""
        try:
            context, configuration, ends = self._files.context(), self._files.configuration(), self._files.ends()
        except (TlsError, OSError) as error:
            log.error("the new certificate cannot be used, so the old one stays in use: %s", error)
            self.current = False
            return False
        self._context, self._configuration, self.ends, self.current = context, configuration, ends, True
        log.warning("new connections use the certificate in %s", self._files.cert)
        return True

    def context(self) -> ssl.SSLContext:
        """Return an SSL context for REST and WebSocket that starts each connection with the newest certificate."""
        following = _Following(ssl.PROTOCOL_TLS_SERVER)
        following.newest = lambda: self._context
        return following

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials for gRPC that use the newest certificate at each handshake."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration,
            lambda: self._configuration,
            require_client_authentication=self._files.client_ca is not None,
        )


def of_server(settings: Settings) -> ServerTls | None:
    """Return the TLS files that the settings name; None if TLS is off."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return ServerTls(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
