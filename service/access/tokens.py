"""Bearer tokens: a file of names and hashes, read again whenever it changes.

    # name:SHA-256 of the token in hex:last day of its validity (UTC), if it has one
    endoscopy-room-1:3b1f0a…:2027-12-31
    research:91c7e4…

The tokens that ``pranet tokens add`` makes have 256 random bits, so a fast hash is enough: there is nothing to guess.
"""

import hashlib
import hmac
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from model.errors import UserError
from service.errors import Unauthenticated

NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)
DIGEST = re.compile(r"[0-9a-f]{64}")

log = logging.getLogger(__name__)


class TokensError(UserError):
    """The file of tokens cannot be used; the message names the line, never what stands in it."""


@dataclass(frozen=True, slots=True)
class Token:
    """One line of the file."""

    name: str
    digest: str  # SHA-256, hex
    last_day: date | None = None  # of its validity, UTC

    def line(self) -> str:
        """Return what stands in the file."""
        return ":".join([self.name, self.digest, *([self.last_day.isoformat()] if self.last_day else [])])


def digest_of(token: str) -> str:
    """Return the hash that the file keeps of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def today() -> date:
    """Return the day by which validity is judged."""
    return datetime.now(UTC).date()


def parse(text: str) -> list[Token]:
    """Read the file's text.

    Raises:
        TokensError: a line is none that ``pranet tokens add`` would write, or a name stands there twice.

    """
    tokens: dict[str, Token] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if (line := line.strip()) and not line.startswith("#"):
            token = _parse_line(number, line)
            if token.name in tokens:
                raise TokensError(f"line {number}: the name {token.name} stands there twice; give each token its own")
            tokens[token.name] = token
    return list(tokens.values())


def _parse_line(number: int, line: str) -> Token:
    name, _, rest = line.partition(":")
    digest, _, last_day = rest.partition(":")
    try:
        if not NAME.fullmatch(name) or not DIGEST.fullmatch(digest):
            raise ValueError
        return Token(name, digest, date.fromisoformat(last_day) if last_day else None)
    except ValueError:
        raise TokensError(
            f"line {number} is not name:sha256-hex or name:sha256-hex:YYYY-MM-DD; let `pranet tokens add` write it"
        ) from None


class Tokens:
    """The tokens that are in force: those of the file as it was when it could last be read."""

    def __init__(self, path: Path, today: Callable[[], date] = today) -> None:
        self._path = path
        self._today = today
        try:
            self._stamp = self._stamped()
            self._tokens = parse(path.read_text())
        except TokensError as error:
            raise TokensError(f"API_TOKENS_FILE {path}: {error}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise TokensError(f"API_TOKENS_FILE {path}: {error}; let `pranet tokens add` make it") from error

    def holder(self, given: str) -> str:
        """Return the name of a token's holder.

        Raises:
            Unauthenticated: the token is unknown or its last day is over.

        """
        self._follow()
        digest = digest_of(given)
        found = None
        for token in self._tokens:  # to the end: how long it takes must not depend on where one matches
            if hmac.compare_digest(token.digest, digest):
                found = token
        if found is None:
            raise Unauthenticated("the token is not known here; ask whoever runs this service for one")
        if found.last_day and found.last_day < self._today():
            raise Unauthenticated(f"the token expired after {found.last_day}; ask for a new one")
        return found.name

    def _follow(self) -> None:
        """Read the file again if it changed; a broken one is logged once, and changes nothing."""
        stamp = self._stamped()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._tokens = parse(self._path.read_text())
            log.info("%d tokens are in force", len(self._tokens))
        except (OSError, UnicodeDecodeError, TokensError) as error:
            log.error("the new API_TOKENS_FILE cannot be used, the tokens before stay in force: %s", error)

    def _stamped(self) -> tuple[int, int, int] | None:
        try:
            status = os.stat(self._path)  # follows the links that Kubernetes swaps under a mounted secret
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino
