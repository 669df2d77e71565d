"""Content codings (RFC 9110, section 8.4): unpacks the bodies of requests, and packs those of answers."""

import asyncio
import functools
import time
import zlib

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send

from service.calls import current
from service.clients.awaited import NOBODY, READER, Awaited
from service.errors import InvalidRequest
from service.http.accept import ranges

# zlib's window bits for each content coding (RFC 9110, section 8.4.1); 16 more means the format of gzip.
CODINGS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
READABLE_CODINGS = "gzip, deflate"
STEP_BYTES = 2**18  # unpacked at a time
# What packs well; pictures are packed already, and NDJSON must not wait for the next line.
PACKED_TYPES = frozenset(
    {
        *("application/json", "application/octet-stream", "application/problem+json"),
        *("application/openmetrics-text", "text/css", "text/html", "text/javascript", "text/plain"),
    }
)
PACKED_LEVEL = 1  # fastest; level 6 takes three times as long for JSON that is an eighth smaller
LEAST_PACKED_BYTES = 1000  # below, it would save no packet
THREAD_BYTES = 2**19  # packing fewer holds up the event loop for 5 ms at most, a mask for 1 ms


class Unpacker:
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
            raise InvalidRequest(f"the body is not valid {self._coding}; compress it again") from error

    def check_end(self) -> None:
        """Check that the last member is complete.

        Raises:
            InvalidRequest: it is not.

        """
        if not self._zlib.eof:
            raise InvalidRequest(f"the {self._coding} data is incomplete; send the whole body")


def packed(send: Send, accept_encoding: str) -> Send:
    """Return what sends an answer in the content coding that an ``Accept-Encoding`` prefers."""
    coding = _preferred(accept_encoding)
    return Packer(send, coding) if coding else send


def weaken(headers: MutableHeaders, accept_encoding: str) -> None:
    """Give a 304 the ``ETag`` and ``Vary`` of an answer with a packed body (RFC 9110, 15.4.5), whatever its length."""
    headers.add_vary_header("Accept-Encoding")
    if _preferred(accept_encoding):
        headers["etag"] = _weak(headers["etag"])


@functools.lru_cache(maxsize=64)  # most clients send one of a few
def _preferred(accept_encoding: str) -> str | None:
    """Return gzip or deflate, or None if it prefers neither."""
    weights = {each.kind: each.quality for each in ranges(accept_encoding)}
    other = weights.get("*", 0.0)
    best = max(("gzip", "deflate"), key=lambda coding: weights.get(coding, other))
    weight = weights.get(best, other)
    return best if weight and weight >= weights.get("identity", 0.0) else None


class Packer:
    """Sends an answer on, and packs its body if that is worth it. To pack a large one is work: no client is awaited.

    The answer's first message waits for the first part of the body, since the headers depend on it.
    """

    def __init__(self, send: Send, coding: str) -> None:
        self._send = send
        self._coding = coding
        self._start: Message | None = None
        self._zlib = zlib.compressobj(PACKED_LEVEL, zlib.DEFLATED, CODINGS[coding])
        self._packs = False

    @property
    def waits(self) -> bool:
        """Tell whether the answer is still to be packed, so that nothing of it was sent."""
        return self._start is not None

    async def __call__(self, message: Message) -> None:
        """Send a message of an HTTP answer (ASGI)."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        if message["type"] == "http.response.body":
            more = message.get("more_body", False)
            body: bytes = message.get("body", b"")
            start = self._start
            if start is not None:
                self._packs = more or len(body) >= LEAST_PACKED_BYTES
            if self._packs:
                body = await self._pack(body, more)
            if start is not None:
                self._describe(start, None if more else len(body))
                self._start = None
                await self._send(start)
            message = {**message, "body": body}
        await self._send(message)

    async def _pack(self, body: bytes, more: bool) -> bytes:
        if len(body) < THREAD_BYTES:
            return self._packed(body, more)
        call = current()
        call.awaited = NOBODY
        body = await asyncio.to_thread(self._packed, body, more)
        call.awaited = Awaited(READER, time.monotonic())
        return body

    def _packed(self, body: bytes, more: bool) -> bytes:
        return self._zlib.compress(body) + self._zlib.flush(zlib.Z_SYNC_FLUSH if more else zlib.Z_FINISH)

    def _describe(self, start: Message, length: int | None) -> None:
        headers = MutableHeaders(scope=start)
        headers.add_vary_header("Accept-Encoding")
        if not self._packs:
            return
        headers["content-encoding"] = self._coding
        if "etag" in headers:
            headers["etag"] = _weak(headers["etag"])
        del headers["content-length"]
        if length is not None:
            headers["content-length"] = str(length)


def _weak(etag: str) -> str:
    """Return the tag of other bytes with the same meaning (RFC 9110, section 8.8.1)."""
    return f"W/{etag.removeprefix('W/')}"
