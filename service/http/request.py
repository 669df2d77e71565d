"""Reads an HTTP request: its call, its query, and its body (image, archive or form) within limits of bytes and time."""

import asyncio
import io
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from model.pictures.reading import READABLE
from service.calls import Call
from service.errors import (
    BodyTooSlow,
    ClientLeft,
    CodedBody,
    InvalidParameter,
    InvalidRequest,
    TooManyBytes,
    UnsupportedImage,
)

MULTIPART = "multipart/form-data"
MULTIPART_OVERHEAD_BYTES = 16 * 1024  # boundaries and part headers around one file
FILE_FIELD = "file"
MAX_PARTS = 10_000  # of a multipart archive
NO_CODING = ("", "identity")  # values of Content-Encoding that mean no encoding
FAULT = "fault"  # key in a request's state: the error in its body, set by ``service.http.protocol``


class _InMemoryParser(MultiPartParser):
    """Keeps all parts in memory; Starlette writes parts over 1 MB to disk, where patient data must not go."""

    spool_max_size = 2**62

    def close(self) -> None:
        """Free parts that were not complete when the body ended."""
        for file in self._files_to_close_on_error:
            file.close()


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
    for name, times in Counter(name for name, _ in request.query_params.multi_items()).items():
        if times > 1:
            raise InvalidParameter(f"{name} is given {times} times; give it once")
    return call_of(request)


def content_type(request: Request) -> str:
    """Return the media type of the body in lower case, without its parameters; empty if there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_image(request: Request, max_bytes: int, deadline: float) -> bytes:
    """Read the encoded image of a request: its body, or the file in its multipart form.

    Args:
        request: its body must not have been read.
        max_bytes: limit for the image.
        deadline: loop time, seconds, by which the whole body must have arrived.

    Raises:
        UnsupportedImage: the content type is neither an image nor a form.
        CodedBody: the body has a ``Content-Encoding``.
        TooManyBytes: the image has more than ``max_bytes``; a declared length is checked before the body is read.
        BodyTooSlow: the deadline passed.
        InvalidRequest: the multipart form is invalid or has no file, or the chunked encoding is invalid.
        ClientLeft: the client closed the connection.

    """
    kind = content_type(request)
    if kind == MULTIPART:
        too_many = partial(TooManyBytes.of_image, max_bytes)
        chunks = _chunks(request, max_bytes + MULTIPART_OVERHEAD_BYTES, too_many)
        files = await _files(request, chunks, 1, deadline, f"send one part named {FILE_FIELD!r}")
        image = next((content for name, _, content in files if name == FILE_FIELD), None)
        if image is None:
            raise InvalidRequest(f"the multipart form has no file part named {FILE_FIELD!r}; send the image there")
        if len(image) > max_bytes:
            raise TooManyBytes.of_image(max_bytes)
        return image
    if kind and not kind.startswith("image/") and kind != "application/octet-stream":
        advice = f"send {READABLE} with its image type, application/octet-stream or {MULTIPART}"
        raise UnsupportedImage(f"the content type {kind} is not supported; {advice}")
    return await read_body(request, max_bytes, max_bytes, deadline)


async def read_body(request: Request, limit: int, max_bytes: int, deadline: float) -> bytes:
    """Read a whole body of at most ``limit`` bytes; an error message names ``max_bytes``, the limit of the image in it.

    Raises:
        CodedBody: the body has a ``Content-Encoding``.
        TooManyBytes: the body is larger; a declared length is checked before the body is read.
        BodyTooSlow: ``deadline`` (loop time, seconds) passed.
        InvalidRequest: the chunked encoding is invalid.
        ClientLeft: the client closed the connection.

    """
    async with _in_time(deadline):
        return b"".join([chunk async for chunk in _chunks(request, limit, partial(TooManyBytes.of_image, max_bytes))])


async def read_zip(request: Request, max_bytes: int, deadline: float) -> io.BytesIO:
    """Read a body of at most ``max_bytes`` into memory, without a second copy of it.

    Raises:
        ServiceError: the same as from ``read_body``.

    """
    archive = io.BytesIO()
    async with _in_time(deadline):
        async for chunk in _chunks(request, max_bytes, partial(_too_large, max_bytes)):
            archive.write(chunk)
    return archive


async def read_parts(request: Request, max_bytes: int, deadline: float) -> list[tuple[str, bytes]]:
    """Read the names and contents of the files in a multipart form of at most ``max_bytes``.

    Raises:
        InvalidRequest: the form is invalid, or has more than ``MAX_PARTS`` parts.
        ServiceError: the same as from ``read_body``.

    """
    chunks = _chunks(request, max_bytes, partial(_too_large, max_bytes))
    files = await _files(request, chunks, MAX_PARTS, deadline, "send each picture as a file part")
    return [(file_name, content) for _, file_name, content in files]


async def _files(
    request: Request, chunks: AsyncGenerator[bytes, None], most: int, deadline: float, advice: str
) -> list[tuple[str, str, bytes]]:
    """Return field, name and content of the files in a form; ``Request.form`` has no limits on bytes and time."""
    parser = _InMemoryParser(request.headers, chunks, max_files=most, max_fields=8)
    try:
        async with _in_time(deadline):
            form = await parser.parse()
        files = [(field, value) for field, value in form.multi_items() if isinstance(value, UploadFile)]
        return [(field, each.filename or "", await _taken(each)) for field, each in files]
    except (MultiPartException, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the multipart form is invalid ({error}); {advice}") from error
    finally:
        parser.close()


async def _taken(part: UploadFile) -> bytes:
    try:
        return await part.read()
    finally:
        await part.close()


@asynccontextmanager
async def _in_time(deadline: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError:
        raise BodyTooSlow("the body did not arrive before the deadline of the request; send it faster") from None


async def _chunks(request: Request, limit: int, too_many: Callable[[], TooManyBytes]) -> AsyncGenerator[bytes, None]:
    codings = [each for each in request.headers.getlist("content-encoding") if each.strip().lower() not in NO_CODING]
    if codings:
        raise CodedBody(f"the body has the Content-Encoding {', '.join(codings)[:80]}; send it without encoding")
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


def _too_large(max_bytes: int) -> TooManyBytes:
    return TooManyBytes(f"the archive has more than {max_bytes} bytes (MAX_ARCHIVE_BYTES); send several smaller ones")
