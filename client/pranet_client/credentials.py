"""Authentication of the client by bearer token or certificate, and the authorities that it trusts."""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx

from pranet_client.errors import InvalidInput, TlsError
from pranet_client.tls import load_authorities, load_identity


@dataclass(frozen=True)
class Access:
    """Token and TLS files for a server. The default, none of them, suits a server on the same machine.

    gRPC uses TLS if ``ca`` is given; REST uses it if the URL begins with ``https``.

    Raises:
        InvalidInput: the token has characters that no token has.
        TlsError: there is a certificate without its key, or a key without its certificate.

    """

    token: str | None = field(default=None, repr=False)
    ca: Path | None = None  # PEM: the authorities that may sign the server's certificate
    cert: Path | None = None  # PEM: the client's certificate, for a server that requires one (mTLS)
    key: Path | None = None  # PEM: its private key

    def __post_init__(self) -> None:
        for name in ("ca", "cert", "key"):
            if isinstance(given := getattr(self, name), str):
                object.__setattr__(self, name, Path(given))
        if self.token is not None:
            token = self.token.strip()  # a file that holds it ends with a line break
            if not (token.isascii() and token.isprintable()):
                raise InvalidInput("the token has characters that no token has; pass what pranet tokens add printed")
            object.__setattr__(self, "token", token)
        if (self.cert is None) != (self.key is None):
            raise TlsError("a client certificate needs its key; pass both cert and key")

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the token as gRPC metadata; HTTP headers have the same form."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    def http(self, url: str, **options: Any) -> httpx.AsyncClient:
        """Return an HTTP client for the REST interface; ``options`` are those of ``httpx.AsyncClient``.

        Raises:
            TlsError: a file cannot be used.

        """
        verify = self._context() if self.ca or self.cert else True
        return httpx.AsyncClient(base_url=url, headers=dict(self.metadata()), verify=verify, trust_env=False, **options)

    def channel(self, target: str, options: Sequence[tuple[str, Any]] = ()) -> grpc.aio.Channel:
        """Return a channel to the gRPC interface; pass ``metadata()`` to each call on it.

        Raises:
            TlsError: a file cannot be used.

        """
        if self.ca is None and self.cert:
            raise TlsError("a client certificate needs TLS; pass ca, too, the authority of the server")
        if self.ca is None:
            return grpc.aio.insecure_channel(target, options=options)
        self._context()  # checks the files, since gRPC's own errors do not name the faulty one
        identity = (self.key.read_bytes(), self.cert.read_bytes()) if self.cert and self.key else (None, None)
        credentials = grpc.ssl_channel_credentials(self.ca.read_bytes(), *identity)
        return grpc.aio.secure_channel(target, credentials, options=options)

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks the certificate and its name
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.ca:
            load_authorities(context, self.ca)
        else:
            context.load_default_certs()
        if self.cert and self.key:
            load_identity(context, self.cert, self.key)
        return context


NO_ACCESS = Access()
