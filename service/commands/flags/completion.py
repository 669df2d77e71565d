"""Flags of ``pranet completion``."""

import argparse

EXAMPLES = """\
examples:
  pranet completion bash > ~/.local/share/bash-completion/completions/pranet
  pranet completion zsh > ~/.zfunc/_pranet
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the shell."""
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="your shell: echo $SHELL")
