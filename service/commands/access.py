"""The access of commands that call a server; ``flags.access`` declares its options."""

import argparse
from pathlib import Path

from model.errors import UserError
from pranet_client.credentials import Access


class AccessError(UserError):
    """The token cannot be read, or a certificate was given without its key."""


def access_of(arguments: argparse.Namespace) -> Access:
    """Return the access that the command line describes.

    Raises:
        AccessError: the token cannot be read, or a certificate was given without its key.

    """
    return _access(arguments, _secret(arguments))


def access_to_pacs(arguments: argparse.Namespace) -> tuple[Access, str | None]:
    """Return the access that the command line describes, and ``user:password`` if that is in place of the token.

    Raises:
        AccessError: see ``access_of``.

    """
    secret = _secret(arguments)
    if secret and ":" in secret:  # no bearer token has one (RFC 6750, section 2.1)
        return _access(arguments, None), secret
    return _access(arguments, secret), None


def _secret(arguments: argparse.Namespace) -> str | None:
    return secret_of("--token-file", arguments.token_file) if arguments.token_file else None


def _access(arguments: argparse.Namespace, token: str | None) -> Access:
    if (arguments.cert_file is None) != (arguments.key_file is None):
        raise AccessError("--cert-file and --key-file belong together; give both, or neither")
    return Access(token, arguments.ca_file, arguments.cert_file, arguments.key_file)


def secret_of(flag: str, file: Path) -> str:
    """Return what a file holds, such as a token.

    Raises:
        AccessError: it cannot be read.

    """
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise AccessError(f"{flag} {file} cannot be read ({reason}); check the path and its permissions") from error
