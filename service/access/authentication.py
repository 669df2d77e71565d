"""Authentication and rate limits of a call; REST, WebSocket and gRPC all use this one decision."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from service.access.rate_limits import Limits, spending
from service.access.tokens import Tokens
from service.errors import Unauthenticated
from service.processes.accounts import Accounts

SCHEME = "bearer"
HOW = "send the header (gRPC: metadata) Authorization: Bearer TOKEN, or the WebSocket subprotocol pranet.bearer.TOKEN"


class Authentication:
    """Identifies callers by their bearer tokens and applies their limits. Without a tokens file, all may call.

    Raises:
        TokensError: the tokens file cannot be used.

    """

    def __init__(
        self,
        tokens_file: Path | None,
        *,
        rate_limit: float | None,
        concurrency: int | None,
        accounts: Accounts | None = None,
    ) -> None:
        self._tokens = Tokens(tokens_file) if tokens_file else None
        self.required = self._tokens is not None
        self._limits = Limits(rate_limit, concurrency, accounts)

    def current(self) -> bool:
        """Return whether the tokens in force are those of the file as it is now; True without a file."""
        return self._tokens is None or self._tokens.usable()

    def next_end(self) -> float:
        """Return when the next valid token ends, in seconds since 1970; infinity if none does."""
        return math.inf if self._tokens is None else self._tokens.end()

    @contextmanager
    def admitted(self, authorizations: Sequence[str]) -> Iterator[None]:
        """Admit a caller for the duration of the block, by the values of its ``Authorization`` headers.

        Raises:
            Unauthenticated: there is no valid token, or there are several headers, and a proxy may have checked
                another one.
            RateLimited: the token has exceeded its rate limit.
            TooManyAtOnce: the token has too many requests and streams open.

        """
        if self._tokens is None:
            yield
            return
        if len(authorizations) > 1:
            raise Unauthenticated("the request has several Authorization headers; send one")
        scheme, _, token = "".join(authorizations).strip().partition(" ")
        if scheme.lower() != SCHEME or not token.strip():
            raise Unauthenticated(f"this service requires a token; {HOW}")
        with spending(self._limits.of(self._tokens.holder(token.strip()))):
            yield
