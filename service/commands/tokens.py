"""``pranet tokens``: creates and revokes bearer tokens in a file; a running server notices changes of the file."""

import argparse
import os
import secrets
from datetime import date
from pathlib import Path

from model.errors import UserError
from service.access.tokens import NAME, Token, TokensError, digest_of, parse
from service.settings import add_flags, from_command_line

HEADER = "# name:SHA-256 of the token in hex:last day of validity (UTC), optional"
PREFIX = "pranet_"  # lets scanners recognise a leaked token


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``add`` and ``remove``."""
    actions = parser.add_subparsers(metavar="WHAT", required=True)
    adding = actions.add_parser("add", help="create a token and print it once; the file stores only its hash")
    adding.add_argument("--expires", type=date.fromisoformat, metavar="YYYY-MM-DD", help="last day of validity (UTC)")
    removing = actions.add_parser("remove", help="revoke a token")
    for action, act in ((adding, _add), (removing, _remove)):
        action.add_argument(
            "name", metavar="NAME", help="name of its holder: letters, digits, dots, dashes, underscores"
        )
        add_flags(action, ("api_tokens_file",))
        action.set_defaults(act=act)


def run(arguments: argparse.Namespace) -> int:
    """Add or remove a token; return the exit code.

    Raises:
        UserError: no token file is given.
        TokensError: the file or the name cannot be used.

    """
    path = from_command_line(arguments).api_tokens_file
    if path is None:
        raise UserError("no token file is given; set --api-tokens-file FILE, or PRANET_API_TOKENS_FILE")
    try:
        code: int = arguments.act(arguments, path)
    except OSError as error:
        raise TokensError(f"{path} cannot be changed ({error.strerror}); check the path and its permissions") from error
    return code


def _add(arguments: argparse.Namespace, path: Path) -> int:
    if not NAME.fullmatch(arguments.name):
        raise TokensError(
            f"{arguments.name!r} is not a valid name; use up to 64 letters, digits, dots, dashes and underscores"
        )
    text = path.read_text() if path.exists() else f"{HEADER}\n"
    if arguments.name in (token.name for token in parse(text)):
        raise TokensError(f"{arguments.name} already has a token; use another name, or remove it first")
    secret = PREFIX + secrets.token_urlsafe(32)
    line = Token(arguments.name, digest_of(secret), arguments.expires).line()
    _replace(path, f"{text.rstrip()}\n{line}\n")
    print(secret)
    return 0


def _remove(arguments: argparse.Namespace, path: Path) -> int:
    text = path.read_text()
    if arguments.name not in (token.name for token in parse(text)):
        raise TokensError(f"{path} has no token of {arguments.name}; give a name from the file")
    kept = [line for line in text.splitlines() if line.strip().partition(":")[0] != arguments.name]
    _replace(path, "\n".join([*kept, ""]))
    return 0


def _replace(path: Path, text: str) -> None:
    """Replace the file atomically: a server that reads it meanwhile sees either the old or the new content."""
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
