"""Flags of ``pranet health``."""

import argparse

from service.commands.flags.settings import add_settings

EXAMPLES = """\
example:
  pranet health --port 8000 && echo ready
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the server's address and its TLS files."""
    add_settings(parser, ("host", "port", "tls_cert", "tls_key", "tls_client_ca"))
