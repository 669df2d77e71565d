"""A flag such as ``--max-batch-size`` for each setting; ``service.configuration`` checks the values."""

import argparse
from collections.abc import Iterable

from service.commands.flags.setting_texts import TEXTS


def add_settings(parser: argparse.ArgumentParser, names: Iterable[str] = tuple(TEXTS)) -> None:
    """Add a flag for each named setting; for all settings by default."""
    group = parser.add_argument_group("settings", "each can also be set as an environment variable, PRANET_NAME")
    for name in names:
        metavar, text = TEXTS[name]
        group.add_argument("--" + name.replace("_", "-"), metavar=metavar, help=text.replace("%", "%%"))
