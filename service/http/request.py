"""Reads an HTTP request: its call, its query, and its picture or archive; ``body`` and ``form`` read the bytes."""

import io
from functools import partial

from starlette.requests import Request

from service.calls import Call
from service.errors import InvalidRequest, TooManyBytes, UnsupportedImage
from service.frames.codec import READABLE
from service.http.body import chunks, read_body
from service.http.form import FILE_FIELD, MULTIPART, Fields, read_form
from service.options import refuse_repeated

MULTIPART_OVERHEAD_BYTES = 16 * 1024  # boundaries, part headers and fields around one file
MAX_PARTS = 10_000  # of a multipart archive
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
    refuse_repeated(name for name, _ in request.query_params.multi_items())
    return call_of(request)


def content_type(request: Request) -> str:
    """Return the media type of the body in lower case, without its parameters; empty if there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_image(request: Request, max_bytes: int, deadline: float) -> tuple[bytes, Fields]:
    """Read the encoded image of a request: its body, or the file in its multipart form and the fields beside it.

    Args:
        request: its body must not have been read.
        max_bytes: limit for the image.
        deadline: loop time, seconds, by which the whole body must have arrived.

    Raises:
        UnsupportedImage: the content type is neither an image nor a form.
        InvalidRequest: the multipart form is invalid or has no file.
        ServiceError: the same as from ``read_body``.

    """
    kind = content_type(request)
    too_many = partial(TooManyBytes.of_image, max_bytes)
    if kind == MULTIPART:
        body = chunks(request, max_bytes + MULTIPART_OVERHEAD_BYTES, too_many)
        form = await read_form(request, body, 1, deadline, f"send one part named {FILE_FIELD!r}")
        image = next((content for name, _, content in form.files if name == FILE_FIELD), None)
        if image is None:
            raise InvalidRequest(
                f"the multipart form has no file part named {FILE_FIELD!r}; send the image there, with a file name"
            )
        if len(image) > max_bytes:
            raise too_many()
        return image, form.fields
    if not kind.startswith("image/") and kind not in UNSPECIFIC:
        advice = f"send {READABLE} with its image type, application/octet-stream or {MULTIPART}"
        raise UnsupportedImage(f"the content type {kind} is not supported; {advice}")
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
    form = await read_form(request, body, MAX_PARTS, deadline, "send each picture as a file part")
    return [(name, content) for _, name, content in form.files], form.fields


def _too_large(max_bytes: int) -> TooManyBytes:
    return TooManyBytes(f"the archive has more than {max_bytes} bytes (MAX_ARCHIVE_BYTES); send several smaller ones")
