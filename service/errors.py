"""Every way a request can fail, with its HTTP and gRPC status side by side.

    ServiceError
    ├── InvalidRequest        400 INVALID_ARGUMENT     the request itself is malformed
    ├── Unauthenticated       401 UNAUTHENTICATED      no valid token
    ├── ForeignOrigin         403 PERMISSION_DENIED    a page of another site
    ├── UnknownRoute          404 NOT_FOUND
    ├── UnknownModel          404 NOT_FOUND            Open Inference Protocol
    ├── MethodNotAllowed      405 UNIMPLEMENTED
    ├── BodyTooSlow           408 DEADLINE_EXCEEDED    the body did not arrive in time
    ├── HeadTooSlow           408 DEADLINE_EXCEEDED    nor did its head
    ├── ReadTooSlowly         408 DEADLINE_EXCEEDED    the client does not take its answers
    ├── TooManyBytes          413 RESOURCE_EXHAUSTED
    ├── TooManyPixels         413 RESOURCE_EXHAUSTED   judged by the header, before decoding
    ├── UnsupportedImage      415 INVALID_ARGUMENT     not an image type that is read here
    ├── CodedBody             415 INVALID_ARGUMENT     compressed for its transport
    ├── UndecodableImage      422 INVALID_ARGUMENT     of a known type, but damaged
    ├── InvalidParameter      422 INVALID_ARGUMENT
    ├── UpgradeRequired       426 FAILED_PRECONDITION  the stream's path, but no WebSocket
    ├── QueueFull             429 RESOURCE_EXHAUSTED   retry
    ├── TooManyStreams        429 RESOURCE_EXHAUSTED   retry
    ├── TooManyWatches        429 RESOURCE_EXHAUSTED   retry
    ├── RateLimited           429 RESOURCE_EXHAUSTED   retry
    ├── TooManyAtOnce         429 RESOURCE_EXHAUSTED   retry
    ├── HeadTooLarge          431 RESOURCE_EXHAUSTED
    ├── ClientLeft            499 CANCELLED            only ever seen in logs and metrics
    ├── InferenceFailed       500 INTERNAL             the network failed on this very frame
    ├── InternalError         500 INTERNAL             a fault of the service
    ├── NotReady              503 UNAVAILABLE          starting; retry
    ├── Draining              503 UNAVAILABLE          stopping; retry elsewhere
    └── DeadlineExceeded      504 DEADLINE_EXCEEDED

A class names the cause; its instance says, in one sentence, what was wrong and what to do.
"""

import math
from http import HTTPStatus
from typing import ClassVar, Self

from grpc import StatusCode

RETRY_AFTER_SECONDS = 1
CLIENT_CLOSED_REQUEST = 499  # nginx's number: no answer can reach anybody, so it is only logged


class ServiceError(Exception):
    """Base of every error that a client can be told about."""

    status: ClassVar[int]
    grpc: ClassVar[StatusCode]
    slug: ClassVar[str]  # the tail of the problem type (RFC 9457), unique for each cause
    retry_after: int | None = None  # seconds; an instance may know better than its class

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    @property
    def problem_type(self) -> str:
        """The problem type, a URI that identifies the cause (RFC 9457, section 3.1.1)."""
        return f"urn:pranet:error:{self.slug}"

    @property
    def title(self) -> str:
        """The standard phrase of the HTTP status."""
        return "Client Closed Request" if self.status == CLIENT_CLOSED_REQUEST else HTTPStatus(self.status).phrase

    def problem(self, request_id: str) -> dict[str, str | int]:
        """Return the body of an ``application/problem+json`` answer."""
        return {
            "type": self.problem_type,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "request_id": request_id,
        }


class InvalidRequest(ServiceError):
    """The request is malformed before its picture is even looked at."""

    status, grpc, slug = 400, StatusCode.INVALID_ARGUMENT, "invalid-request"


class Unauthenticated(ServiceError):
    """No valid credentials came with the request."""

    status, grpc, slug = 401, StatusCode.UNAUTHENTICATED, "unauthenticated"


class ForeignOrigin(ServiceError):
    """A page of another site sent something, or asked for a WebSocket, and `CORS_ORIGINS` does not name it."""

    status, grpc, slug = 403, StatusCode.PERMISSION_DENIED, "foreign-origin"


class UnknownRoute(ServiceError):
    """Nothing is served under this path."""

    status, grpc, slug = 404, StatusCode.NOT_FOUND, "unknown-route"


class UnknownModel(ServiceError):
    """The model, or the version of it, is not served here (Open Inference Protocol)."""

    status, grpc, slug = 404, StatusCode.NOT_FOUND, "unknown-model"


class MethodNotAllowed(ServiceError):
    """The path exists, but not with this method; over gRPC, there is no such method."""

    status, grpc, slug = 405, StatusCode.UNIMPLEMENTED, "method-not-allowed"
    allow = ""  # methods that the path has (RFC 9110, section 10.2.1)


class BodyTooSlow(ServiceError):
    """The request's body did not arrive within the request's time."""

    status, grpc, slug = 408, StatusCode.DEADLINE_EXCEEDED, "body-too-slow"


class HeadTooSlow(ServiceError):
    """The request's line and headers did not arrive in time."""

    status, grpc, slug = 408, StatusCode.DEADLINE_EXCEEDED, "head-too-slow"


class ReadTooSlowly(ServiceError):
    """A stream's client did not take an answer in time; the stream was ended."""

    status, grpc, slug = 408, StatusCode.DEADLINE_EXCEEDED, "read-too-slowly"


class TooManyBytes(ServiceError):
    """The body, or a message, exceeds ``MAX_IMAGE_BYTES``."""

    status, grpc, slug = 413, StatusCode.RESOURCE_EXHAUSTED, "too-many-bytes"

    @classmethod
    def of_image(cls, max_bytes: int) -> Self:
        """Return the error of an image that exceeds ``max_bytes``."""
        return cls(f"the image has more than {max_bytes} bytes (MAX_IMAGE_BYTES); send a smaller one")

    @classmethod
    def of_message(cls, size: int, max_bytes: int) -> Self:
        """Return the error of a message of ``size`` bytes."""
        return cls(
            f"the message has {size} bytes, more than {max_bytes}; send a smaller one (of pictures: MAX_IMAGE_BYTES)"
        )


class TooManyPixels(ServiceError):
    """The picture declares more than ``MAX_IMAGE_PIXELS``; it was not decoded."""

    status, grpc, slug = 413, StatusCode.RESOURCE_EXHAUSTED, "too-many-pixels"


class UnsupportedImage(ServiceError):
    """The body is not a still image of a type that is read here."""

    status, grpc, slug = 415, StatusCode.INVALID_ARGUMENT, "unsupported-image"


class CodedBody(ServiceError):
    """The body has a `Content-Encoding`; bodies are read as they are."""

    status, grpc, slug = 415, StatusCode.INVALID_ARGUMENT, "coded-body"


class UndecodableImage(ServiceError):
    """The body is an image of a known type, but damaged."""

    status, grpc, slug = 422, StatusCode.INVALID_ARGUMENT, "undecodable-image"


class InvalidParameter(ServiceError):
    """A parameter is unknown or out of range."""

    status, grpc, slug = 422, StatusCode.INVALID_ARGUMENT, "invalid-parameter"


class UpgradeRequired(ServiceError):
    """The video stream was asked for without a WebSocket's handshake."""

    status, grpc, slug = 426, StatusCode.FAILED_PRECONDITION, "upgrade-required"


class QueueFull(ServiceError):
    """``MAX_QUEUE_SIZE`` requests wait already; nothing was decoded."""

    status, grpc, slug = 429, StatusCode.RESOURCE_EXHAUSTED, "queue-full"
    retry_after = RETRY_AFTER_SECONDS


class TooManyStreams(ServiceError):
    """``MAX_STREAMS`` video streams are open already."""

    status, grpc, slug = 429, StatusCode.RESOURCE_EXHAUSTED, "too-many-streams"
    retry_after = RETRY_AFTER_SECONDS


class TooManyWatches(ServiceError):
    """The connection has as many watches of gRPC health open as it may."""

    status, grpc, slug = 429, StatusCode.RESOURCE_EXHAUSTED, "too-many-watches"
    retry_after = RETRY_AFTER_SECONDS


class RateLimited(ServiceError):
    """The token's `RATE_LIMIT` is used up for the moment; `Retry-After` says for how long."""

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
    """The request's line and headers are larger than any that this service needs."""

    status, grpc, slug = 431, StatusCode.RESOURCE_EXHAUSTED, "head-too-large"


class ClientLeft(ServiceError):
    """The client closed the connection; its work was dropped."""

    status, grpc, slug = CLIENT_CLOSED_REQUEST, StatusCode.CANCELLED, "client-left"


class InferenceFailed(ServiceError):
    """The network failed on this frame, also when it was tried alone."""

    status, grpc, slug = 500, StatusCode.INTERNAL, "inference-failed"


class InternalError(ServiceError):
    """A fault of the service; its log has the cause under the same request id."""

    status, grpc, slug = 500, StatusCode.INTERNAL, "internal"

    def __init__(self, work: str) -> None:
        super().__init__(f"the service failed on this {work}; retry, or ask its operator: its log has the cause")


class NotReady(ServiceError):
    """The service is starting, or its inference does not answer."""

    status, grpc, slug = 503, StatusCode.UNAVAILABLE, "not-ready"
    retry_after = RETRY_AFTER_SECONDS


class Draining(ServiceError):
    """The service is stopping and takes no new work."""

    status, grpc, slug = 503, StatusCode.UNAVAILABLE, "draining"
    retry_after = RETRY_AFTER_SECONDS


class DeadlineExceeded(ServiceError):
    """The answer was not ready within the request's time."""

    status, grpc, slug = 504, StatusCode.DEADLINE_EXCEEDED, "deadline-exceeded"
