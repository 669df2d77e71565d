"""Reads an HTTP request: its call, its query, and its body within limits of bytes and time.

The limits of a body apply to the bytes that are received, and to those that they unpack to (``Content-Encoding``).
"""

import asyncio
import io
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from starlette.requests import ClientDisconnect, Request

from model.pictures.reading import READABLE
from service.calls import Call
from service.clients.awaited import NOBODY, REQUEST, Awaited
from service.errors import BodyTooSlow, ClientLeft, CodedBody, InvalidRequest, TooManyBytes, UnsupportedImage
from service.frames.foreign import kind_of_type
from service.http.content_encoding import CODINGS, READABLE_CODINGS, Unpacker
from service.http.form import FILE_FIELD, MULTIPART, Fields, read_form
from service.http.multipart_related import RELATED, read_related
from service.options import refuse_repeated

MULTIPART_OVERHEAD_BYTES = 16 * 1024  # boundaries, part headers and fields around one file
MAX_PARTS = 10_000  # of a multipart archive
FAULT = "fault"  # key in a request's state: the error in its body, set by ``service.http.protocol``
# Content types that say nothing about the body: none; any bytes; and what ``curl --data-binary`` and Python's urllib
# send unless they are told another one.
UNSPECIFIC = ("", "application/octet-stream", "application/x-www-form-urlencoded")


def call_of(request: Request) -> Call:
    """Return the call that ``HttpCalls`` made of a request."""
    call: Call = request.state.call
    return call


def checked_call(request: Request) -> Call:
    """Return the call of a request after checking that each query parameter is given once.

    FastAPI would silently use the last of several values.

    Raises:
        InvalidParameter: a parameter is given twice.

    """
    names = [name for name, _ in request.query_params.multi_items()]
    if len(set(names)) < len(names):
        refuse_repeated(names)
    return call_of(request)


def accepts_anything(request: Request) -> bool:
    """Tell whether the client takes any media type, as most do; there is nothing to negotiate then."""
    return request.headers.getlist("accept") in ([], ["*/*"])


def content_type(request: Request) -> str:
    """Return the media type of the body in lower case, without its parameters; empty if there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_image(request: Request, max_bytes: int, deadline: float) -> tuple[bytes, Fields]:
    """Read the encoded image of a request: its body, or the one in its multipart body and the fields beside it.

    Args:
        request: its body must not have been read.
        max_bytes: limit for the image.
        deadline: loop time, seconds, by which the whole body must have arrived.

    Raises:
        UnsupportedImage: the content type is neither an image nor multipart.
        InvalidRequest: the multipart body is invalid, or has no file or several.
        ServiceError: the same as from ``read_body``.

    """
    kind = content_type(request)
    too_many = partial(TooManyBytes.of_image, max_bytes)
    if kind == MULTIPART:
        body = chunks(request, max_bytes + MULTIPART_OVERHEAD_BYTES, too_many)
        async with in_time(deadline):
            form = await read_form(request, body, 1, f"send one part named {FILE_FIELD!r}")
        image = next((content for name, _, content in form.files if name == FILE_FIELD), None)
        if image is None:
            raise InvalidRequest(
                f"the multipart form has no file part named {FILE_FIELD!r}; send the image there, with a file name"
            )
        if len(image) > max_bytes:
            raise too_many()
        return image, form.fields
    if kind == RELATED:
        body = chunks(request, max_bytes + MULTIPART_OVERHEAD_BYTES, too_many)
        async with in_time(deadline):
            parts = await read_related(request, body, MAX_PARTS)
        if len(parts) != 1:
            raise InvalidRequest(f"the body has {len(parts)} parts; send one here, or all to POST /segment/batch")
        if len(parts[0]) > max_bytes:
            raise too_many()
        return parts[0], []
    if not kind.startswith("image/") and kind not in UNSPECIFIC:
        advice = f"send {READABLE} with its image type, application/octet-stream or {MULTIPART}"
        raise UnsupportedImage(kind_of_type(kind) or f"the content type {kind} is not supported; {advice}")
    return await read_body(request, max_bytes, deadline, too_many), []


async def read_zip(request: Request, max_bytes: int, deadline: float) -> io.BytesIO:
    """Read a body of at most ``max_bytes`` into memory, without a second copy of it.

    Raises:
        ServiceError: the same as from ``read_body``.

    """
    archive = io.BytesIO()
    await read_body(request, max_bytes, deadline, partial(_too_large, max_bytes), archive)
    return archive


async def read_parts(request: Request, max_bytes: int, deadline: float) -> tuple[list[tuple[str, bytes]], Fields]:
    """Read a multipart form of at most ``max_bytes``: names and contents of its files, and its fields.

    Raises:
        InvalidRequest: the form is invalid, or has more than ``MAX_PARTS`` parts.
        ServiceError: the same as from ``read_body``.

    """
    body = chunks(request, max_bytes, partial(_too_large, max_bytes))
    async with in_time(deadline):
        form = await read_form(request, body, MAX_PARTS, "send each picture as a file part")
    return [(name, content) for _, name, content in form.files], form.fields


async def read_related_parts(request: Request, max_bytes: int, deadline: float) -> list[tuple[str, bytes]]:
    """Read a ``multipart/related`` body of at most ``max_bytes``: its parts, each named by its number from 1.

    Raises:
        InvalidRequest: the body is invalid, or has more than ``MAX_PARTS`` parts.
        ServiceError: the same as from ``read_body``.

    """
    body = chunks(request, max_bytes, partial(_too_large, max_bytes))
    async with in_time(deadline):
        parts = await read_related(request, body, MAX_PARTS)
    return [(str(number), part) for number, part in enumerate(parts, 1)]


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
    size, unpacker = 0, Unpacker(coding)
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
    size, call = 0, call_of(request)
    call.awaited = Awaited(REQUEST, time.monotonic())
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise too_many()
            yield chunk
            call.awaited = Awaited(REQUEST, time.monotonic())
        call.awaited = NOBODY
    except ClientDisconnect:
        raise ClientLeft("the client closed the connection while it sent the body") from None
    if fault := getattr(request.state, FAULT, None):
        raise fault


def _too_large(max_bytes: int) -> TooManyBytes:
    return TooManyBytes(
        f"the archive has more than {max_bytes} bytes (MAX_ARCHIVE_BYTES); split it into several requests"
    )
