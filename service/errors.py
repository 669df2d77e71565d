"""Every error that a client can get, with its HTTP and gRPC status side by side.

    ServiceError
    ├── InvalidRequest        400 INVALID_ARGUMENT     the request itself is malformed
    ├── Unauthenticated       401 UNAUTHENTICATED      no valid token
    ├── ForeignOrigin         403 PERMISSION_DENIED    the web page's origin is not allowed
    ├── UnknownRoute          404 NOT_FOUND
    ├── UnknownModel          404 NOT_FOUND            Open Inference Protocol
    ├── MethodNotAllowed      405 UNIMPLEMENTED
    ├── NotAcceptable         406 INVALID_ARGUMENT     the answer is not available in the types of Accept
    ├── BodyTooSlow           408 DEADLINE_EXCEEDED    the body did not arrive in time
    ├── HeadTooSlow           408 DEADLINE_EXCEEDED    the headers did not arrive in time
    ├── ReadTooSlowly         408 DEADLINE_EXCEEDED    the client does not read its answers
    ├── TooManyBytes          413 RESOURCE_EXHAUSTED
    ├── TooManyPixels         413 RESOURCE_EXHAUSTED   found in the header, before decoding
    ├── UnsupportedImage      415 INVALID_ARGUMENT     not a supported image format
    ├── CodedBody             415 INVALID_ARGUMENT     the body has a Content-Encoding that is not supported
    ├── UndecodableImage      422 INVALID_ARGUMENT     damaged, or an unsupported variant of its format
    ├── InvalidParameter      422 INVALID_ARGUMENT
    ├── UpgradeRequired       426 FAILED_PRECONDITION  the stream's path needs a WebSocket
    ├── QueueFull             429 RESOURCE_EXHAUSTED   retry
    ├── TooManyStreams        429 RESOURCE_EXHAUSTED   retry
    ├── TooManyWatches        429 RESOURCE_EXHAUSTED   retry
    ├── RateLimited           429 RESOURCE_EXHAUSTED   retry
    ├── TooManyAtOnce         429 RESOURCE_EXHAUSTED   retry
    ├── HeadTooLarge          431 RESOURCE_EXHAUSTED
    ├── ClientLeft            499 CANCELLED            seen only in logs and metrics
    ├── InferenceFailed       500 INTERNAL             the network failed on this frame
    ├── InternalError         500 INTERNAL             a fault in the service
    ├── NotReady              503 UNAVAILABLE          starting or stalled; retry
    ├── Draining              503 UNAVAILABLE          stopping; retry elsewhere
    └── DeadlineExceeded      504 DEADLINE_EXCEEDED

The class names the cause. The message of an instance says, in one sentence, what was wrong and what to do.
"""

import math
from http import HTTPStatus
from typing import ClassVar, Self

from grpc import StatusCode

RETRY_AFTER_SECONDS = 1
MOST_BYTES = 2000  # of a message; what was sent may be part of it
CLIENT_CLOSED_REQUEST = 499  # nginx's number; it is only logged, since no client is left to answer


class ServiceError(Exception):
    """Base of every error that a client can get."""

    status: ClassVar[int]
    grpc: ClassVar[StatusCode]
    slug: ClassVar[str]  # unique for each cause; the end of the problem type (RFC 9457)
    retry_after: int | None = None  # seconds; an instance may override its class

    def __init__(self, detail: str) -> None:
        # gRPC drops an answer whose metadata exceed 8 KiB; each byte of other characters than ASCII takes three there.
        if len(encoded := detail.encode(errors="replace")) > MOST_BYTES:
            detail = f"{encoded[:MOST_BYTES].decode(errors='ignore')}…"
        super().__init__(detail)
        self.detail = detail

    @property
    def problem_type(self) -> str:
        """URI that identifies the cause (RFC 9457, section 3.1.1)."""
        return f"urn:pranet:error:{self.slug}"

    @property
    def title(self) -> str:
        """Standard reason phrase of the HTTP status."""
        return "Client Closed Request" if self.status == CLIENT_CLOSED_REQUEST else HTTPStatus(self.status).phrase

    def problem(self, request_id: str) -> dict[str, str | int]:
        """Return the body of an ``application/problem+json`` answer (RFC 9457)."""
        return {
            "type": self.problem_type,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "request_id": request_id,
        }


class InvalidRequest(ServiceError):
    """The request is malformed; the picture was not read."""

    status, grpc, slug = 400, StatusCode.INVALID_ARGUMENT, "invalid-request"


class Unauthenticated(ServiceError):
    """The request has no valid credentials."""

    status, grpc, slug = 401, StatusCode.UNAUTHENTICATED, "unauthenticated"


class ForeignOrigin(ServiceError):
    """A web page sent a request or opened a WebSocket, and `CORS_ORIGINS` does not list its origin."""

    status, grpc, slug = 403, StatusCode.PERMISSION_DENIED, "foreign-origin"


class UnknownRoute(ServiceError):
    """No route has this path."""

    status, grpc, slug = 404, StatusCode.NOT_FOUND, "unknown-route"


class UnknownModel(ServiceError):
    """The service does not have this model or version (Open Inference Protocol)."""

    status, grpc, slug = 404, StatusCode.NOT_FOUND, "unknown-model"


class MethodNotAllowed(ServiceError):
    """The path does not accept this HTTP method; over gRPC, the method does not exist."""

    status, grpc, slug = 405, StatusCode.UNIMPLEMENTED, "method-not-allowed"
    allow = ""  # methods that the path has (RFC 9110, section 10.2.1)


class NotAcceptable(ServiceError):
    """The answer is not available in any media type that the request's `Accept` allows."""

    status, grpc, slug = 406, StatusCode.INVALID_ARGUMENT, "not-acceptable"


class BodyTooSlow(ServiceError):
    """The body did not arrive before the request's deadline."""

    status, grpc, slug = 408, StatusCode.DEADLINE_EXCEEDED, "body-too-slow"


class HeadTooSlow(ServiceError):
    """The request line and headers did not arrive in time."""

    status, grpc, slug = 408, StatusCode.DEADLINE_EXCEEDED, "head-too-slow"


class ReadTooSlowly(ServiceError):
    """The client did not read an answer of its stream in time; the stream was closed."""

    status, grpc, slug = 408, StatusCode.DEADLINE_EXCEEDED, "read-too-slowly"


class TooManyBytes(ServiceError):
    """The body or message is larger than a limit such as ``MAX_IMAGE_BYTES``."""

    status, grpc, slug = 413, StatusCode.RESOURCE_EXHAUSTED, "too-many-bytes"

    @classmethod
    def of_image(cls, max_bytes: int) -> Self:
        """Return the error for an image of more than ``max_bytes``."""
        return cls(f"the image has more than {max_bytes} bytes (MAX_IMAGE_BYTES); send a smaller one")

    @classmethod
    def of_message(cls, size: int, max_bytes: int, limit: str) -> Self:
        """Return the error for a message of ``size`` bytes; ``limit`` says whose limit it exceeds."""
        return cls(f"the message has {size} bytes, more than the limit of {max_bytes} ({limit}); send a smaller one")


class TooManyPixels(ServiceError):
    """The picture's header declares more than ``MAX_IMAGE_PIXELS`` pixels; it was not decoded."""

    status, grpc, slug = 413, StatusCode.RESOURCE_EXHAUSTED, "too-many-pixels"


class UnsupportedImage(ServiceError):
    """The format, the content type or the kind of DICOM object is not supported; the detail says which."""

    status, grpc, slug = 415, StatusCode.INVALID_ARGUMENT, "unsupported-image"


class CodedBody(ServiceError):
    """The `Content-Encoding` of the body is not gzip or deflate, or names several; `Accept-Encoding` lists both."""

    status, grpc, slug = 415, StatusCode.INVALID_ARGUMENT, "coded-body"


class UndecodableImage(ServiceError):
    """The image is damaged, or uses a variant of its format that is not supported; the detail says which."""

    status, grpc, slug = 422, StatusCode.INVALID_ARGUMENT, "undecodable-image"


class InvalidParameter(ServiceError):
    """A parameter is unknown or has an invalid value."""

    status, grpc, slug = 422, StatusCode.INVALID_ARGUMENT, "invalid-parameter"


class UpgradeRequired(ServiceError):
    """The path of the video stream was requested without a WebSocket handshake of version 13."""

    status, grpc, slug = 426, StatusCode.FAILED_PRECONDITION, "upgrade-required"


class QueueFull(ServiceError):
    """``MAX_QUEUE_SIZE`` requests wait, ``MAX_ARCHIVES`` archives are in progress, or other maps are being computed."""

    status, grpc, slug = 429, StatusCode.RESOURCE_EXHAUSTED, "queue-full"
    retry_after = RETRY_AFTER_SECONDS


class TooManyStreams(ServiceError):
    """``MAX_STREAMS`` video streams are open already."""

    status, grpc, slug = 429, StatusCode.RESOURCE_EXHAUSTED, "too-many-streams"
    retry_after = RETRY_AFTER_SECONDS


class TooManyWatches(ServiceError):
    """The connection has too many gRPC health watches open."""

    status, grpc, slug = 429, StatusCode.RESOURCE_EXHAUSTED, "too-many-watches"
    retry_after = RETRY_AFTER_SECONDS


class RateLimited(ServiceError):
    """The token has exceeded its `RATE_LIMIT`; `Retry-After` says how long to wait."""

    status, grpc, slug = 429, StatusCode.RESOURCE_EXHAUSTED, "rate-limited"
    retry_after = RETRY_AFTER_SECONDS

    def __init__(self, detail: str, wait_seconds: float) -> None:
        super().__init__(detail)
        self.retry_after = math.ceil(wait_seconds)


class TooManyAtOnce(ServiceError):
    """The token has `TOKEN_CONCURRENCY` requests and streams open already."""

    status, grpc, slug = 429, StatusCode.RESOURCE_EXHAUSTED, "too-many-at-once"
    retry_after = RETRY_AFTER_SECONDS


class HeadTooLarge(ServiceError):
    """The request line and headers are larger than the limit."""

    status, grpc, slug = 431, StatusCode.RESOURCE_EXHAUSTED, "head-too-large"


class ClientLeft(ServiceError):
    """The client closed the connection before it got an answer; its work was cancelled."""

    status, grpc, slug = CLIENT_CLOSED_REQUEST, StatusCode.CANCELLED, "client-left"


class InferenceFailed(ServiceError):
    """The network failed on this frame, both in a batch and alone."""

    status, grpc, slug = 500, StatusCode.INTERNAL, "inference-failed"


class InternalError(ServiceError):
    """A fault in the service; its log has the cause under the same request id."""

    status, grpc, slug = 500, StatusCode.INTERNAL, "internal"

    def __init__(self, work: str) -> None:
        super().__init__(
            f"the service failed on this {work}; retry, or ask the operator: the log has the cause under the request id"
        )


class NotReady(ServiceError):
    """The service is starting, or inference or decoding does not answer."""

    status, grpc, slug = 503, StatusCode.UNAVAILABLE, "not-ready"
    retry_after = RETRY_AFTER_SECONDS


class Draining(ServiceError):
    """The service is shutting down: it accepts no new work, or it stopped before the answer was ready."""

    status, grpc, slug = 503, StatusCode.UNAVAILABLE, "draining"
    retry_after = RETRY_AFTER_SECONDS


class DeadlineExceeded(ServiceError):
    """The answer was not ready before the request's deadline."""

    status, grpc, slug = 504, StatusCode.DEADLINE_EXCEEDED, "deadline-exceeded"

    def __init__(self, detail: str = "the answer was not ready in time; retry, or allow more time") -> None:
        super().__init__(detail)


def causes() -> list[type[ServiceError]]:
    """Return every cause for which a request can fail."""
    return ServiceError.__subclasses__()
