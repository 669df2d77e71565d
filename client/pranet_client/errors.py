"""The errors of the client.

ClientError
├── InvalidInput      an argument is not a picture, iterable of pictures or address
├── TlsError          a certificate, key or authority file cannot be used
└── RequestFailed     the service refused the request, failed on it, or cannot be reached
"""

from typing import Self

ERROR_METADATA_KEY = "pranet-error"  # the entry of gRPC's trailing metadata that names the cause
UNREACHABLE = "unreachable"
CLOSED = "this client is closed; create a new one"
OF_HTTP1 = ("http1", "SETTINGS")  # in what gRPC says of a port that speaks HTTP/1.1
UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"  # in the reasons of OpenSSL


class ClientError(Exception):
    """Base of every error of this package; the message is one line that says what is wrong and what to do."""


class InvalidInput(ClientError, ValueError):
    """What was given is no picture, iterable of pictures or address; the message says what to give instead."""


class TlsError(ClientError):
    """A certificate, key or authority file cannot be used; the message names the file."""


class RequestFailed(ClientError):
    """The service refused the request, failed on it, was too slow, or cannot be reached.

    Args:
        cause: the end of the service's problem type, such as ``queue-full``; ``unreachable`` if there was no answer,
            ``timeout`` if it did not come in time, ``http-502`` or the name of a gRPC status if a proxy answered.
        detail: a sentence for people.
        status: the HTTP status, or the name of the gRPC status of a stream; None without an answer.
        retry_after: seconds after which the service asks to try again; None if it does not.
        request_id: the id under which the service logged the request; None if there is none.

    """

    def __init__(
        self,
        cause: str,
        detail: str,
        *,
        status: int | str | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(cause, detail)  # what ``pickle`` calls it with, as pools of processes do
        self.cause = cause
        self.detail = detail
        self.status = status
        self.retry_after = retry_after
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.cause}: {self.detail}"

    @classmethod
    def unreachable(cls, address: str, reason: str, *, grpc: bool = True) -> Self:
        """Return the error of a service that does not answer at ``address``, over gRPC or REST."""
        if UNTRUSTED in reason:
            advice = "pass the authority that signed it: Access(ca=...), or --ca-file"
            return cls(UNREACHABLE, f"the certificate of {address} is not trusted; {advice} ({reason})")
        if grpc and ("://" in address or any(word in reason for word in OF_HTTP1)):
            advice = "streams need the gRPC port as HOST:PORT, usually HOST:8001, without http://"
            return cls(UNREACHABLE, f"{address} is not the gRPC address of a service; {advice} ({reason})")
        advice = "check that it runs (pranet serve), its address and port, and whether it asks for TLS"
        return cls(UNREACHABLE, f"no service answers at {address}; {advice} ({reason})")
