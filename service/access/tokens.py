"""Bearer tokens: a file of names and hashes that is read again whenever it changes.

    # name:SHA-256 of the token in hex:last valid day in UTC (optional)
    endoscopy-room-1:3b1f0a…:2027-12-31
    research:91c7e4…

Tokens of ``pranet tokens add`` have 256 random bits and cannot be guessed, so a fast hash is enough.
"""

import hashlib
import hmac
import logging
import math
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from model.errors import UserError
from service.errors import Unauthenticated

NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)
DIGEST = re.compile(r"[0-9a-f]{64}")

DAY_SECONDS = 86_400.0
SETTLED_NS = 2_000_000_000  # the coarsest tick of a file system's clock

Stamp = tuple[int, int, int]  # time of the last change of content, owner or mode, ns; size, bytes; inode

log = logging.getLogger(__name__)


class TokensError(UserError):
    """The tokens file cannot be used; the message names the line but does not quote it."""


@dataclass(frozen=True, slots=True)
class Token:
    """One line of the tokens file."""

    name: str
    digest: str  # SHA-256 of the token, hex
    last_day: date | None = None  # last valid day, UTC; None if the token does not expire

    def line(self) -> str:
        """Return this token as a line of the file."""
        return ":".join([self.name, self.digest, *([self.last_day.isoformat()] if self.last_day else [])])


def digest_of(token: str) -> str:
    """Return the SHA-256 of a token in hex, as the file stores it."""
    return hashlib.sha256(token.encode()).hexdigest()


def today() -> date:
    """Return the current day in UTC, which decides whether a token has expired."""
    return datetime.now(UTC).date()


def parse(text: str) -> list[Token]:
    """Parse the text of a tokens file.

    Raises:
        TokensError: a line is malformed, or a name occurs twice.

    """
    tokens: dict[str, Token] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if (line := line.strip()) and not line.startswith("#"):
            token = _parse_line(number, line)
            if token.name in tokens:
                raise TokensError(f"line {number}: the name {token.name} occurs twice; give each token its own name")
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
            f"line {number} is not name:sha256-hex or name:sha256-hex:YYYY-MM-DD; `pranet tokens add` writes such lines"
        ) from None


class Tokens:
    """The valid tokens: those of the file when it could last be read."""

    def __init__(self, path: Path, today: Callable[[], date] = today) -> None:
        self._path = path
        self._today = today
        self._fault: str | None = None  # of the file as it is now
        try:
            self._stamp = self._stamped()
            self._tokens = parse(path.read_text())
        except TokensError as error:
            raise TokensError(f"the tokens file {path}: {error}") from error
        except UnicodeDecodeError as error:
            raise TokensError(f"the tokens file {path} is not text; `pranet tokens add` writes such a file") from error
        except OSError as error:
            advice = "create it with `pranet tokens add`, or give another path"
            raise TokensError(f"the tokens file {path} cannot be read ({error.strerror}); {advice}") from error
        self._warn_if_none()

    def holder(self, given: str) -> str:
        """Return the name of a token's holder.

        Raises:
            Unauthenticated: the token is unknown or has expired.

        """
        self._follow()
        digest = digest_of(given)
        found = None
        for token in self._tokens:  # no early exit: the time must not depend on which token matches
            if hmac.compare_digest(token.digest, digest):
                found = token
        if found is None:
            raise Unauthenticated("the token is unknown; ask the operator of this service for one")
        if found.last_day and found.last_day < self._today():
            raise Unauthenticated(
                f"the token expired after {found.last_day}; ask the operator of this service for a new one"
            )
        return found.name

    def usable(self) -> bool:
        """Return whether the tokens in force are those of the file as it is now."""
        self._follow()
        return self._fault is None

    def end(self) -> float:
        """Return when the next valid token ends, in seconds since 1970; infinity if none does."""
        self._follow()
        today = self._today()
        days = [token.last_day for token in self._tokens if token.last_day and token.last_day >= today]
        if not days:
            return math.inf
        return datetime.combine(min(days), datetime.min.time(), UTC).timestamp() + DAY_SECONDS

    def _follow(self) -> None:
        """Read the file again if it has changed; a broken file is logged once, and the old tokens stay valid."""
        stamp = self._stamped()
        if stamp is not None and stamp == self._stamp:
            return
        try:
            tokens = self._newest()
        except (OSError, UnicodeDecodeError, TokensError) as error:
            self._stamp = None if isinstance(error, OSError) else stamp  # it may be readable at the next try
            if self._fault != (fault := str(error)):
                log.error("the new API_TOKENS_FILE cannot be used, so the old tokens stay valid: %s", fault)
            self._fault = fault
            return
        changed = tokens != self._tokens or self._fault
        self._stamp, self._tokens, self._fault = stamp, tokens, None
        if changed:
            log.info("API_TOKENS_FILE was read again; valid tokens: %d", len(tokens))
            self._warn_if_none()

    def _warn_if_none(self) -> None:
        if not self._tokens:
            advice = "add one with `pranet tokens add`"
            log.warning("the tokens file %s holds no token, so nobody gets in; %s", self._path, advice)

    def _newest(self) -> list[Token]:
        with self._path.open() as file:
            if os.fstat(file.fileno()).st_nlink == 0:  # Docker mounts a file by its inode, whatever replaces it
                raise TokensError("the mount still shows a file that was replaced; mount its folder instead")
            return parse(file.read())

    def _stamped(self) -> Stamp | None:
        """Return what changes with the file or the right to read it; None if it cannot be seen, or changed just now.

        The clock of a file system is coarse: a second change within one of its ticks leaves the time as it is.
        """
        try:
            status = os.stat(self._path)  # follows symbolic links, which Kubernetes swaps to update a mounted secret
        except OSError:
            return None
        if abs(time.time_ns() - status.st_ctime_ns) < SETTLED_NS:
            return None
        return status.st_ctime_ns, status.st_size, status.st_ino
