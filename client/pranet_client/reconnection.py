"""Decides whether and when a stream reconnects after its connection broke."""

import logging
import math
import time

import grpc

from pranet_client.errors import ERROR_METADATA_KEY, UNREACHABLE, RequestFailed

FIRST_PAUSE_SECONDS = 0.25  # before the second connection; doubled each time until one succeeds
LONGEST_PAUSE_SECONDS = 8.0
FIRST_REPLY_SECONDS = 10.0  # a stream without any reply gives up after this time
FINAL_CODES = (
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,  # without "retry-after": a message is too large for ever
)

log = logging.getLogger(__name__)


class Reconnection:
    """The back-off between the connections of one stream, and the time at which it gives up.

    Args:
        target: HOST:PORT, for messages.
        until: a time of ``time.monotonic``, seconds, after which the client does not reconnect.

    """

    def __init__(self, target: str, until: float = math.inf) -> None:
        self._target = target
        self._until = until
        self._give_up = min(until, time.monotonic() + FIRST_REPLY_SECONDS)
        self._pause = FIRST_PAUSE_SECONDS
        self._replied = False  # on the last connection

    def succeeded(self) -> None:
        """Record a reply: the service exists, so a later failure is retried until ``until``."""
        self._give_up, self._pause, self._replied = self._until, FIRST_PAUSE_SECONDS, True

    def failed(self, error: grpc.aio.AioRpcError) -> float:
        """Return how long to wait before the next connection, seconds.

        Raises:
            RequestFailed: the service refuses the stream, or the time is over.

        """
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        if is_final(error) or time.monotonic() + pause > self._give_up:
            raise request_failed(self._target, error) from error
        if self._replied:
            log.warning("the connection to %s broke (%s); reconnecting", self._target, error.details())
            self._replied = False
        return pause


def hides_status(error: grpc.aio.AioRpcError) -> bool:
    """Return whether gRPC lost the status of the call, such as a refusal, in a race of its own (grpcio 1.85)."""
    return error.code() is grpc.StatusCode.INTERNAL and not _cause(error)


def is_final(error: grpc.aio.AioRpcError) -> bool:
    """Return whether the service or a proxy refused the call, which a retry would not change.

    The metadata count first: HAProxy 2.6 passes them on, but turns the status of a refused stream into CANCELLED.
    """
    if error.code() is grpc.StatusCode.UNAVAILABLE or "retry-after" in _metadata(error):
        return False
    return error.code() in FINAL_CODES or bool(_cause(error))


def request_failed(target: str, error: grpc.aio.AioRpcError) -> RequestFailed:
    """Convert the gRPC error of a call to ``target``."""
    if error.code() is grpc.StatusCode.UNAVAILABLE and not _cause(error):
        return RequestFailed.unreachable(target, error.details() or "")
    if hides_status(error):
        told = f"the call to {target} ended without the answer of the service; try again ({error.details()})"
        return RequestFailed(UNREACHABLE, told, status=error.code().name)
    metadata, detail = _metadata(error), error.details() or ""
    if error.code() is grpc.StatusCode.CANCELLED and _cause(error):
        detail = f"the service refused the call, and a proxy lost its message; see the table of errors ({detail})"
    return RequestFailed(
        _cause(error) or error.code().name.lower(),
        detail,
        status=error.code().name,
        retry_after=float(metadata["retry-after"]) if "retry-after" in metadata else None,
        request_id=metadata.get("x-request-id"),
    )


def _cause(error: grpc.aio.AioRpcError) -> str:
    """Return the cause that the service gave; empty if the error comes from gRPC itself."""
    return _metadata(error).get(ERROR_METADATA_KEY, "")


def _metadata(error: grpc.aio.AioRpcError) -> dict[str, str]:
    return {name: str(value) for name, value in error.trailing_metadata() or ()}
