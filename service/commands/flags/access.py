"""The flags ``--token-file``, ``--ca-file``, ``--cert-file`` and ``--key-file`` of commands that call a server."""

import argparse
from pathlib import Path


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
