"""What a client shows to be let in, and whom it believes: a token, and TLS."""

import argparse
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx

from model.errors import UserError
from service.access.tls import load_authorities, load_identity


class AccessError(UserError):
    """What was given to be let in with cannot be used."""


@dataclass(frozen=True)
class Access:
    """By default nothing, as for a server on this machine.

    gRPC speaks TLS if ``ca`` is given, REST if its URL says so.
    """

    token: str | None = None
    ca: Path | None = None  # PEM: the authorities that may have signed the server's certificate
    cert: Path | None = None  # PEM: this client's own, for a server that wants one
    key: Path | None = None

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the token as gRPC metadata, which are HTTP headers too."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    def http(self, url: str, **options: Any) -> httpx.AsyncClient:
        """Return a client of the REST interface.

        Raises:
            TlsError: a file cannot be used.

        """
        verify = self._context() if self.ca else True
        return httpx.AsyncClient(base_url=url, headers=dict(self.metadata()), verify=verify, trust_env=False, **options)

    def channel(self, target: str, options: Sequence[tuple[str, Any]] = ()) -> grpc.aio.Channel:
        """Return a channel to the gRPC interface; each call has to take ``metadata()`` along.

        Raises:
            TlsError: a file cannot be used.

        """
        if self.ca is None:
            return grpc.aio.insecure_channel(target, options=options)
        self._context()  # gRPC itself would not say what is wrong with a file
        identity = (self.key.read_bytes(), self.cert.read_bytes()) if self.cert and self.key else (None, None)
        credentials = grpc.ssl_channel_credentials(self.ca.read_bytes(), *identity)
        return grpc.aio.secure_channel(target, credentials, options=options)

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks the certificate and its name
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.ca:
            load_authorities(context, self.ca)
        if self.cert and self.key:
            load_identity(context, self.cert, self.key)
        return context


NO_ACCESS = Access()


def add_access_options(parser: argparse.ArgumentParser) -> None:
    """Declare what a server may ask of its clients. A token on the command line would stand in every process list."""
    group = parser.add_argument_group("access", "for a server with tokens or TLS")
    group.add_argument(
        "--token-file", type=Path, metavar="FILE", help="holds the token, as pranet tokens add prints it"
    )
    group.add_argument("--ca-file", type=Path, metavar="FILE", help="authorities to believe, PEM; gRPC speaks TLS then")
    group.add_argument("--cert-file", type=Path, metavar="FILE", help="own certificate, PEM, if the server wants one")
    group.add_argument("--key-file", type=Path, metavar="FILE", help="its private key, PEM")


def access_of(arguments: argparse.Namespace) -> Access:
    """Return what the command line says.

    Raises:
        AccessError: the token cannot be read, or a certificate came without its key.

    """
    if (arguments.cert_file is None) != (arguments.key_file is None):
        raise AccessError("--cert-file and --key-file are needed together; give both, or neither")
    token = None
    if arguments.token_file:
        try:
            token = arguments.token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise AccessError(
                f"--token-file {arguments.token_file} cannot be read ({error}); name one that holds a token"
            ) from error
    return Access(token, arguments.ca_file, arguments.cert_file, arguments.key_file)
