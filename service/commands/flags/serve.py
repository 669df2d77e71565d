"""Flags of ``pranet serve``."""

import argparse

from service.commands.flags.settings import add_settings

EXAMPLES = """\
examples:
  pranet serve
  pranet serve --host 0.0.0.0 --api-tokens-file tokens --tls-cert cert.pem --tls-key key.pem
  PRANET_PRECISION=int8 pranet serve
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare one flag for each setting."""
    add_settings(parser)
