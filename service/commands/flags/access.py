"""The flags ``--token-file``, ``--ca-file``, ``--cert-file`` and ``--key-file`` of commands that call a server."""

import argparse
from pathlib import Path


def add_access_options(
    parser: argparse.ArgumentParser,
    about: str = "for a server that requires a token or TLS",
    *,
    token: str = "file with the token that pranet tokens add printed",
    ca: str = "PEM file of the authorities to trust; gRPC then uses TLS",
) -> None:
    """Declare the options. The token is given as a file: every user can read command lines in the process list."""
    group = parser.add_argument_group("access", about)
    for flag, text in (
        ("--token-file", token),
        ("--ca-file", ca),
        ("--cert-file", "PEM file of the client's certificate, if the server requires one (mTLS)"),
        ("--key-file", "PEM file of its private key"),
    ):
        group.add_argument(flag, type=Path, metavar="FILE", help=text)
