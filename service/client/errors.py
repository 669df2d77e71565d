"""What a client of the service says when a request fails."""

import grpc

from model.errors import UserError
from service.errors import ERROR_METADATA_KEY

FINAL_CODES = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


class RequestFailed(UserError):
    """The service refused or failed; ``cause`` is the tail of its problem type."""

    def __init__(self, cause: str, detail: str) -> None:
        super().__init__(f"{cause}: {detail}")
        self.cause = cause
        self.detail = detail


def is_final(error: grpc.aio.AioRpcError) -> bool:
    """Tell a refusal, which the service or a proxy names, from a connection that broke in whatever way."""
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
        return False
    return error.code() in FINAL_CODES or bool(_cause(error))


def _cause(error: grpc.aio.AioRpcError) -> str:
    """Return the cause that the service names; empty where the words are gRPC's own."""
    return str(dict(error.trailing_metadata() or ()).get(ERROR_METADATA_KEY, ""))


def of_call(target: str, error: grpc.aio.AioRpcError) -> RequestFailed:
    """Return what ended a call of ``target``."""
    if error.code() is grpc.StatusCode.UNAVAILABLE and not _cause(error):
        return unreachable(target, error.details() or "")
    return RequestFailed(_cause(error) or error.code().name.lower(), error.details() or "")


def unreachable(address: str, reason: str) -> RequestFailed:
    """Return that nobody answered."""
    advice = "check that it runs (pranet serve), its address and port, and whether it asks for TLS"
    return RequestFailed("unreachable", f"no service answers at {address}; {advice} ({reason})")
