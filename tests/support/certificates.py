"""Certificates made at run time, and what servers and clients are told about them."""

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trustme

from pranet_client.credentials import Access


@dataclass
class Authority:
    """Signs certificates, and writes them into a folder."""

    folder: Path
    ca: trustme.CA = field(default_factory=trustme.CA)

    @property
    def pem(self) -> Path:
        """Its own certificate."""
        path = self.folder / f"authority-{id(self.ca)}.pem"
        self.ca.cert_pem.write_to_path(path)
        return path

    def issue(self, name: str, **options: Any) -> tuple[Path, Path]:
        """Write a certificate and its key."""
        made = self.ca.issue_cert(name, **options)
        cert, key = (self.folder / f"{uuid.uuid4()}-{kind}.pem" for kind in ("cert", "key"))
        cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        made.private_key_pem.write_to_path(key)
        return cert, key

    def server(self) -> dict[str, Path]:
        """Return the settings of a server on this machine."""
        cert, key = self.issue("127.0.0.1")
        return {"tls_cert": cert, "tls_key": key}

    def client(
        self, identity: tuple[Path, Path] | tuple[None, None] = (None, None), token: str | None = None
    ) -> Access:
        """Return what a client needs that believes this authority."""
        return Access(token, self.pem, *identity)

    def expired(self) -> tuple[Path, Path]:
        """Write a certificate whose time is over."""
        return self.issue(
            "client", not_before=datetime(2020, 1, 1, tzinfo=UTC), not_after=datetime(2021, 1, 1, tzinfo=UTC)
        )
