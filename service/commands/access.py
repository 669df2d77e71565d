"""The options ``--token-file``, ``--ca-file``, ``--cert-file`` and ``--key-file`` of commands that call a server."""

import argparse
from pathlib import Path

from model.errors import UserError
from pranet_client.credentials import Access


class AccessError(UserError):
    """The token cannot be read, or a certificate was given without its key."""


def add_access_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options. The token is given as a file: every user can read command lines in the process list."""
    group = parser.add_argument_group("access", "for a server that requires a token or TLS")
    group.add_argument(
        "--token-file", type=Path, metavar="FILE", help="file with the token that pranet tokens add printed"
    )
    group.add_argument(
        "--ca-file", type=Path, metavar="FILE", help="PEM file of the authorities to trust; gRPC then uses TLS"
    )
    group.add_argument(
        "--cert-file",
        type=Path,
        metavar="FILE",
        help="PEM file of the client's certificate, if the server requires one (mTLS)",
    )
    group.add_argument("--key-file", type=Path, metavar="FILE", help="PEM file of its private key")


def access_of(arguments: argparse.Namespace) -> Access:
    """Return the access that the command line describes.

    Raises:
        AccessError: the token cannot be read, or a certificate was given without its key.

    """
    if (arguments.cert_file is None) != (arguments.key_file is None):
        raise AccessError("--cert-file and --key-file belong together; give both, or neither")
    token = None
    if arguments.token_file:
        try:
            token = arguments.token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise AccessError(
                f"--token-file {arguments.token_file} cannot be read ({error}); give the file that holds the token"
            ) from error
    return Access(token, arguments.ca_file, arguments.cert_file, arguments.key_file)
