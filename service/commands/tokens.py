"""``pranet tokens``: make and withdraw the bearer tokens of a file; a running server follows the file by itself."""

import argparse
import os
import secrets
from datetime import date
from pathlib import Path

from model.errors import UserError
from service.access.tokens import NAME, Token, TokensError, digest_of, parse
from service.settings import add_flags, from_command_line

HEADER = "# name:SHA-256 of the token in hex:last day of its validity (UTC), if it has one"
PREFIX = "pranet_"  # by which scanners for leaked secrets know it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``add`` and ``remove``."""
    actions = parser.add_subparsers(metavar="WHAT", required=True)
    adding = actions.add_parser("add", help="make a token and print it, this once; the file keeps only its hash")
    adding.add_argument("--expires", type=date.fromisoformat, metavar="YYYY-MM-DD", help="last day of its validity")
    removing = actions.add_parser("remove", help="withdraw a token")
    for action, act in ((adding, _add), (removing, _remove)):
        action.add_argument("name", metavar="NAME", help="of its holder; letters, digits, dot, dash and underscore")
        add_flags(action, ("api_tokens_file",))
        action.set_defaults(act=act)


def run(arguments: argparse.Namespace) -> int:
    """Change the file; return the exit code.

    Raises:
        SettingsError: no file is named.
        TokensError: the file or the name cannot be used.

    """
    path = from_command_line(arguments).api_tokens_file
    if path is None:
        raise UserError("name the file of tokens: --api-tokens-file FILE, or PRANET_API_TOKENS_FILE")
    try:
        code: int = arguments.act(arguments, path)
    except OSError as error:
        raise TokensError(f"{path} cannot be changed: {error.strerror}") from error
    return code


def _add(arguments: argparse.Namespace, path: Path) -> int:
    if not NAME.fullmatch(arguments.name):
        raise TokensError(f"{arguments.name!r} is no name; take up to 64 letters, digits, dots, dashes, underscores")
    text = path.read_text() if path.exists() else f"{HEADER}\n"
    if arguments.name in (token.name for token in parse(text)):
        raise TokensError(f"{arguments.name} has a token; take another name, or remove it first")
    secret = PREFIX + secrets.token_urlsafe(32)
    line = Token(arguments.name, digest_of(secret), arguments.expires).line()
    _replace(path, f"{text.rstrip()}\n{line}\n")
    print(secret)
    return 0


def _remove(arguments: argparse.Namespace, path: Path) -> int:
    text = path.read_text()
    if arguments.name not in (token.name for token in parse(text)):
        raise TokensError(f"{path} has no token of {arguments.name}; give a name that stands in it")
    kept = [line for line in text.splitlines() if line.strip().partition(":")[0] != arguments.name]
    _replace(path, "\n".join([*kept, ""]))
    return 0


def _replace(path: Path, text: str) -> None:
    """Write the file so that a server which reads it at this moment sees either the old or the new one, whole."""
    path = path.resolve()
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
