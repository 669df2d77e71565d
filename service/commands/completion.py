"""``pranet completion``: prints the script with which a shell completes commands, flags, choices and paths."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import shtab

from service.commands.main import COMMANDS, parser_of


def run(arguments: argparse.Namespace) -> int:
    """Print the script for ``arguments.shell``; return 0."""
    parser = parser_of(COMMANDS)
    for action in _actions(parser):
        if str(action.metavar).startswith("{"):  # a setting, whose value ``Settings`` checks
            action.choices = str(action.metavar).strip("{}").split(",")
        if action.type is Path or action.metavar == "PATH":
            action.complete = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, arguments.shell))
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the actions of a parser and of its subcommands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
