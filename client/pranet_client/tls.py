"""Loads certificates, keys and authorities into TLS contexts, for clients and servers."""

import ssl
from pathlib import Path

from pranet_client.errors import TlsError


def load_identity(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    """Load a certificate and its private key, both PEM; the key must have no passphrase.

    Raises:
        TlsError: they cannot be used.

    """
    try:
        context.load_cert_chain(cert, key, password=lambda: "")  # otherwise OpenSSL asks on the terminal
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise TlsError(
            f"{cert} and {key} cannot be used: give a certificate and its private key, both PEM, the key without a "
            f"passphrase ({error})"
        ) from error


def load_authorities(context: ssl.SSLContext, ca: Path) -> None:
    """Load the certificates, PEM, of the authorities to trust.

    Raises:
        TlsError: the file cannot be used.

    """
    try:
        context.load_verify_locations(ca)
    except OSError as error:
        raise TlsError(f"{ca} cannot be used: give a PEM file with the authorities' certificates ({error})") from error
