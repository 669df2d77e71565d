"""TLS of both servers: 1.2 at least, forward secrecy and authenticated ciphers only."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from model.errors import UserError
from service.settings import Settings

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; all of TLS 1.3's are as good


class TlsError(UserError):
    """A certificate, a key or an authority cannot be used; the message names the file."""


@dataclass(frozen=True)
class ServerTls:
    """What both servers prove themselves with, and whose clients they let in."""

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

    def credentials(self) -> grpc.ServerCredentials:
        """Return the same for gRPC, whose library speaks TLS 1.2 and 1.3 only.

        Raises:
            TlsError: a file cannot be used.

        """
        self.context()  # gRPC itself would not say what is wrong with a file
        return grpc.ssl_server_credentials(
            [(self.key.read_bytes(), self.cert.read_bytes())],
            self.client_ca.read_bytes() if self.client_ca else None,
            require_client_auth=self.client_ca is not None,
        )


def of_server(settings: Settings) -> ServerTls | None:
    """Return what the settings say; None where TLS is off."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return ServerTls(settings.tls_cert, settings.tls_key, settings.tls_client_ca)


def load_identity(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    """Load a certificate and its key.

    Raises:
        TlsError: they cannot be used.

    """
    try:
        context.load_cert_chain(cert, key, password=lambda: "")  # else OpenSSL asks for it on the terminal
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise TlsError(
            f"{cert} and {key} are no certificate and its key without a passphrase, in PEM: {error}"
        ) from error


def load_authorities(context: ssl.SSLContext, ca: Path) -> None:
    """Load the certificates of those who are believed.

    Raises:
        TlsError: the file cannot be used.

    """
    try:
        context.load_verify_locations(ca)
    except OSError as error:
        raise TlsError(f"{ca} holds no certificates of authorities in PEM: {error}") from error
