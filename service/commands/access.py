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
    if (arguments.cert_file is None) != (arguments.key_file is None):
        raise AccessError("--cert-file and --key-file belong together; give both, or neither")
    token = secret_of("--token-file", arguments.token_file) if arguments.token_file else None
    return Access(token, arguments.ca_file, arguments.cert_file, arguments.key_file)


def secret_of(flag: str, file: Path) -> str:
    """Return what a file holds, such as a token.

    Raises:
        AccessError: it cannot be read.

    """
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise AccessError(f"{flag} {file} cannot be read ({reason}); check the path and its permissions") from error
