"""Flags of ``pranet health``."""

import argparse

from service.configuration import add_flags

EXAMPLES = """\
example:
  pranet health --port 8000 && echo ready
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the server's address and its TLS files."""
    add_flags(parser, ("host", "port", "tls_cert", "tls_key", "tls_client_ca"))
