"""``pranet tokens``: creates and revokes bearer tokens in a file; a running server notices changes of the file."""

import argparse
import secrets
from datetime import date, timedelta
from pathlib import Path

from model import files
from model.errors import UserError
from service.access.tokens import NAME, Token, TokensError, digest_of, parse, today
from service.settings import add_flags, from_command_line

HEADER = "# name:SHA-256 of the token in hex:last day of validity (UTC), optional"
YEAR = timedelta(days=365)
PREFIX = "pranet_"  # lets scanners recognise a leaked token


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``add``, ``remove`` and ``list``."""
    actions = parser.add_subparsers(metavar="WHAT", required=True)
    adding = actions.add_parser("add", help="create a token and print it once; the file stores only its hash")
    adding.add_argument("--expires", type=_last_day, metavar="YYYY-MM-DD", help="last day of validity (UTC)")
    removing = actions.add_parser("remove", help="revoke a token")
    listing = actions.add_parser("list", help="list the holders, and how long their tokens are valid")
    for action in (adding, removing):
        action.add_argument(
            "name", metavar="NAME", help="name of its holder: letters, digits, dots, dashes, underscores"
        )
    for action, act in ((adding, _add), (removing, _remove), (listing, _list)):
        add_flags(action, ("api_tokens_file",))
        action.set_defaults(act=act, done="read" if action is listing else "changed")


def run(arguments: argparse.Namespace) -> int:
    """Add, remove or list tokens; return the exit code.

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
        raise TokensError(
            f"{path} cannot be {arguments.done} ({error.strerror}); check the path and its permissions"
        ) from error
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
    files.write(path, f"{text.rstrip()}\n{line}\n", mode=files.PRIVATE)
    print(secret)
    return 0


def _remove(arguments: argparse.Namespace, path: Path) -> int:
    text = path.read_text()
    if arguments.name not in (token.name for token in parse(text)):
        raise TokensError(f"{path} has no token of {arguments.name}; give a name from the file")
    kept = [line for line in text.splitlines() if line.strip().partition(":")[0] != arguments.name]
    files.write(path, "\n".join([*kept, ""]), mode=files.PRIVATE)
    return 0


def _list(arguments: argparse.Namespace, path: Path) -> int:
    for token in parse(path.read_text()):
        if token.last_day is None:
            validity = "does not expire"
        else:
            validity = f"{'expired after' if token.last_day < today() else 'valid until'} {token.last_day}"
        print(f"{token.name:<24} {validity}")
    return 0


def _last_day(text: str) -> date:
    """Parse ``--expires``.

    Raises:
        ArgumentTypeError: it is no date, or one in the past.

    """
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no date; give the last day of validity as YYYY-MM-DD, such as {today() + YEAR}"
        ) from None
    if day < today():
        raise argparse.ArgumentTypeError(f"{day} is past, so the token would never be valid; today is {today()} in UTC")
    return day
