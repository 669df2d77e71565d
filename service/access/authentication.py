"""Who may call, and how often: the one decision behind REST, WebSocket and gRPC."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from service.access.rate_limits import Limits, spending
from service.access.tokens import Tokens
from service.errors import Unauthenticated

SCHEME = "bearer"
HOW = "send the header (gRPC: metadata) Authorization: Bearer TOKEN, or the WebSocket subprotocol pranet.bearer.TOKEN"


class Authentication:
    """Tells callers by their bearer tokens, and holds each to its limits. Without a file of tokens, everybody may call.

    Raises:
        TokensError: the file of tokens cannot be used.

    """

    def __init__(self, tokens_file: Path | None, *, rate_limit: float | None, concurrency: int | None) -> None:
        self._tokens = Tokens(tokens_file) if tokens_file else None
        self.required = self._tokens is not None
        self._limits = Limits(rate_limit, concurrency)

    @contextmanager
    def admitted(self, authorizations: Sequence[str]) -> Iterator[None]:
        """Let a caller in for the time of the block, by the values of its ``Authorization`` headers.

        Raises:
            Unauthenticated: no valid token came, or more than one header, of which a proxy may have judged another.
            RateLimited: the token's requests of this second are used up.
            TooManyAtOnce: the token has as many requests open as it may.

        """
        if self._tokens is None:
            yield
            return
        if len(authorizations) > 1:
            raise Unauthenticated("the request has several Authorization headers; send one")
        scheme, _, token = "".join(authorizations).strip().partition(" ")
        if scheme.lower() != SCHEME or not token.strip():
            raise Unauthenticated(f"this service asks for a token; {HOW}")
        with spending(self._limits.of(self._tokens.holder(token.strip()))):
            yield
