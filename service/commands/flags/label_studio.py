"""Flags of ``pranet label-studio``."""

import argparse
from pathlib import Path

from service.commands.flags.access import add_access_options
from service.commands.values import port

SERVER = "http://127.0.0.1:8000"
LABEL_STUDIO = "http://127.0.0.1:8080"
HOST, PORT = "127.0.0.1", 9090
EXAMPLES = """\
examples:
  pranet label-studio --label-studio-token-file labels
  pranet label-studio --label-studio-token-file labels --server https://gpu:8000 --token-file token --ca-file ca.pem
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where the back end listens, the server that it asks, and the Label Studio that has the pictures."""
    add = parser.add_argument
    add("--host", default=HOST, help=f"address to listen on (default: {HOST})")
    add("--port", type=port, default=PORT, help=f"port to listen on; 0 takes a free one (default: {PORT})")
    add("--login-file", type=Path, metavar="FILE", help="file with NAME:PASSWORD, which Label Studio must then send")
    add("--server", default=SERVER, metavar="URL", help=f"REST address of the server (default: {SERVER})")
    group = parser.add_argument_group("Label Studio", "which has the pictures; none are fetched from elsewhere")
    group.add_argument(
        "--label-studio-url", default=LABEL_STUDIO, metavar="URL", help=f"its address (default: {LABEL_STUDIO})"
    )
    group.add_argument(
        "--label-studio-token-file",
        type=Path,
        metavar="FILE",
        required=True,
        help="file with an access token, personal or legacy, of a user who may see the tasks",
    )
    add_access_options(parser)
