"""Flags of ``pranet replay``."""

import argparse
from pathlib import Path

from service.commands.flags.stream import add_stream_options

EXAMPLES = """\
example:
  pranet replay session --server 127.0.0.1:8001
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the recording, and the options of a stream."""
    parser.add_argument("recording", type=Path, metavar="DIR", help="folder that pranet stream --record has written")
    add_stream_options(parser, policy="every", recorded=True)
