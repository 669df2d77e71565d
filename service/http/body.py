"""Reads the body of a request within limits of bytes and time, and unpacks it (``Content-Encoding``).

The limits apply to the bytes that are received and to those that come out of them.
"""

import asyncio
import io
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request

from service.errors import BodyTooSlow, ClientLeft, CodedBody, InvalidRequest, TooManyBytes

# zlib's window bits for each content coding (RFC 9110, section 8.4.1); 16 more means the format of gzip.
CODINGS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
READABLE_CODINGS = "gzip, deflate"
STEP_BYTES = 2**18  # unpacked at a time
FAULT = "fault"  # key in a request's state: the error in its body, set by ``service.http.protocol``


async def read_body(
    request: Request,
    limit: int,
    deadline: float,
    too_many: Callable[[], TooManyBytes],
    into: io.BytesIO | None = None,
) -> bytes:
    """Read a whole body of at most ``limit`` bytes, or append it to ``into`` and return nothing.

    Raises:
        CodedBody: the body has a ``Content-Encoding`` other than gzip and deflate.
        TooManyBytes: the body is larger, packed or unpacked; a declared length is checked before the body is read.
        BodyTooSlow: ``deadline`` (loop time, seconds) passed.
        InvalidRequest: the chunked encoding is invalid, or the content coding is damaged.
        ClientLeft: the client closed the connection.

    """
    async with in_time(deadline):
        if into is None:
            return b"".join([chunk async for chunk in chunks(request, limit, too_many)])
        async for chunk in chunks(request, limit, too_many):
            into.write(chunk)
        return b""


@asynccontextmanager
async def in_time(deadline: float) -> AsyncIterator[None]:
    """Limit the time in which the body is read.

    Raises:
        BodyTooSlow: ``deadline`` (loop time, seconds) passed inside the block.

    """
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError:
        raise BodyTooSlow("the body did not arrive before the deadline of the request; send it faster") from None


def coding_of(request: Request) -> str:
    """Return the content coding of the body; empty if it has none.

    Raises:
        CodedBody: it has another coding than gzip and deflate, or several.

    """
    listed = ",".join(request.headers.getlist("content-encoding"))
    codings = [name for each in listed.lower().split(",") if (name := each.strip()) not in ("", "identity")]
    if len(codings) > 1 or any(name not in CODINGS for name in codings):
        raise CodedBody(
            f"the body has the Content-Encoding {', '.join(codings)[:80]}; send it with one of {READABLE_CODINGS}, "
            "or without"
        )
    return codings[0] if codings else ""


async def chunks(request: Request, limit: int, too_many: Callable[[], TooManyBytes]) -> AsyncGenerator[bytes, None]:
    """Yield the body as it comes, unpacked; ``too_many`` makes the error for more than ``limit`` bytes."""
    coding = coding_of(request)
    received = _received(request, limit, too_many)
    if not coding:
        async for chunk in received:
            yield chunk
        return
    size, unpacker = 0, _Unpacker(coding)
    async for packed in received:
        unpacker.packed += packed
        while part := await asyncio.to_thread(unpacker.next):
            size += len(part)
            if size > limit:
                raise too_many()
            yield part
    unpacker.check_end()


async def _received(request: Request, limit: int, too_many: Callable[[], TooManyBytes]) -> AsyncGenerator[bytes, None]:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise too_many()  # ``HttpProtocol`` discards the body, so that the client can read the answer
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise too_many()
            yield chunk
    except ClientDisconnect:
        raise ClientLeft("the client closed the connection while it sent the body") from None
    if fault := getattr(request.state, FAULT, None):
        raise fault


class _Unpacker:
    """Unpacks a body step by step, so that a few bytes never become many at once."""

    def __init__(self, coding: str) -> None:
        self.packed = b""  # received, and not unpacked yet
        self._coding = coding
        self._zlib = zlib.decompressobj(CODINGS[coding])

    def next(self) -> bytes:
        """Return the next ``STEP_BYTES`` at most; empty if more has to be received first.

        Raises:
            InvalidRequest: the data are damaged.

        """
        try:
            while True:
                if self._zlib.eof and not self.packed:
                    return b""
                if self._zlib.eof:  # gzip may have several members (RFC 1952, section 2.2)
                    self._zlib = zlib.decompressobj(CODINGS[self._coding])
                part = self._zlib.decompress(self.packed, STEP_BYTES)  # without input, what was too much before
                self.packed = self._zlib.unused_data or self._zlib.unconsumed_tail
                if part or not self.packed:
                    return part
        except zlib.error as error:
            raise InvalidRequest(f"the body is not valid {self._coding} ({error}); pack it again") from error

    def check_end(self) -> None:
        """Check that the last member is complete.

        Raises:
            InvalidRequest: it is not.

        """
        if not self._zlib.eof:
            raise InvalidRequest(f"the body ends inside its {self._coding} data; send all of it")
