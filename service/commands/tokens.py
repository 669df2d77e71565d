"""``pranet tokens``: creates and revokes bearer tokens in a file; a running server notices changes of the file."""

import argparse
import secrets
from pathlib import Path

from model import files
from model.errors import UserError
from service.access.tokens import NAME, Token, TokensError, digest_of, parse, today
from service.configuration import from_command_line

HEADER = "# name:SHA-256 of the token in hex:last day of validity (UTC), optional"
PREFIX = "pranet_"  # lets scanners recognise a leaked token


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
        code = ACTIONS[arguments.act](arguments, path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise TokensError(
            f"{path} cannot be {arguments.done} ({reason}); check the path and its permissions"
        ) from error
    return code


def _add(arguments: argparse.Namespace, path: Path) -> int:
    if not NAME.fullmatch(arguments.name):
        raise TokensError(
            f"{arguments.name!r} is not a valid name; use up to 64 letters, digits, dots, dashes and underscores"
        )
    secret = PREFIX + secrets.token_urlsafe(32)
    with files.replacing(path, mode=files.PRIVATE) as draft:  # before it is read: no other command changes it meanwhile
        text = path.read_text() if path.exists() else f"{HEADER}\n"
        if arguments.name in (token.name for token in parse(text)):
            raise TokensError(f"{arguments.name} already has a token; use another name, or remove it first")
        line = Token(arguments.name, digest_of(secret), arguments.expires).line()
        draft.write_text(f"{text.rstrip()}\n{line}\n")
    print(secret)
    return 0


def _remove(arguments: argparse.Namespace, path: Path) -> int:
    with files.replacing(path, mode=files.PRIVATE) as draft:
        text = path.read_text()
        if arguments.name not in (token.name for token in parse(text)):
            raise TokensError(f"{path} has no token named {arguments.name}; give a name from the file")
        kept = [line for line in text.splitlines() if line.strip().partition(":")[0] != arguments.name]
        draft.write_text("\n".join([*kept, ""]))
    return 0


def _list(arguments: argparse.Namespace, path: Path) -> int:
    for token in parse(path.read_text()):
        if token.last_day is None:
            validity = "does not expire"
        else:
            validity = f"{'expired after' if token.last_day < today() else 'valid until'} {token.last_day}"
        print(f"{token.name:<24} {validity}")
    return 0


ACTIONS = {"add": _add, "remove": _remove, "list": _list}
