"""The image in an HTTP request: raw body or multipart file, within its limits of bytes and time."""

import asyncio
from collections.abc import AsyncGenerator

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from service.codec import READABLE
from service.errors import BodyTooSlow, ClientLeft, InvalidRequest, TooManyBytes, UnsupportedImage

MULTIPART = "multipart/form-data"
MULTIPART_OVERHEAD_BYTES = 16 * 1024  # boundaries and part headers around the one file
FILE_FIELD = "file"


class _InMemoryParser(MultiPartParser):
    """Starlette's parser writes parts over 1 MB to disk; a patient's picture does not belong there."""

    spool_max_size = 2**62

    def close(self) -> None:
        """Let go of parts that the end of the body cut off."""
        for file in self._files_to_close_on_error:
            file.close()


async def read_image(request: Request, max_bytes: int, deadline: float) -> bytes:
    """Return the encoded image of a request.

    Args:
        request: its body is read here.
        max_bytes: limit for the image.
        deadline: loop time, seconds, by which the whole body must be in.

    Raises:
        UnsupportedImage: the content type is not an image's.
        TooManyBytes: more than ``max_bytes``; noticed by the declared length where there is one.
        BodyTooSlow: the deadline passed.
        InvalidRequest: the multipart form is broken or has no file.
        ClientLeft: the client closed the connection.

    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == MULTIPART:
        body = await read_body(request, max_bytes + MULTIPART_OVERHEAD_BYTES, max_bytes, deadline)
        image = await _file_part(request.headers, body)
        if len(image) > max_bytes:
            raise _too_many(max_bytes)
        return image
    if content_type and not content_type.startswith("image/") and content_type != "application/octet-stream":
        advice = f"send {READABLE} with its image type, application/octet-stream or {MULTIPART}"
        raise UnsupportedImage(f"content type {content_type} is not read here; {advice}")
    return await read_body(request, max_bytes, max_bytes, deadline)


async def read_body(request: Request, limit: int, max_bytes: int, deadline: float) -> bytes:
    """Return a whole body of at most ``limit`` bytes, of which ``max_bytes`` are the image's.

    Raises:
        TooManyBytes: noticed by the declared length where there is one.
        BodyTooSlow: ``deadline`` (loop time, seconds) passed.
        ClientLeft: the client closed the connection.

    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_many(max_bytes)  # the server discards the rest, so that the client can read the answer
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout_at(deadline):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise _too_many(max_bytes)
                chunks.append(chunk)
    except TimeoutError:
        raise BodyTooSlow("the body did not arrive within the request's time; send it faster") from None
    except ClientDisconnect:
        raise ClientLeft("the client closed the connection while it sent the body") from None
    return b"".join(chunks)


def _too_many(max_bytes: int) -> TooManyBytes:
    return TooManyBytes(f"the image has more than {max_bytes} bytes (MAX_IMAGE_BYTES); send a smaller one")


async def _file_part(headers: Headers, body: bytes) -> bytes:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = _InMemoryParser(headers, stream(), max_files=1, max_fields=8)
    try:
        form = await parser.parse()
    except (MultiPartException, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the multipart form is broken ({error}); send one part named {FILE_FIELD!r}") from error
    try:
        upload = form.get(FILE_FIELD)
        if not isinstance(upload, UploadFile):
            raise InvalidRequest(f"the multipart form has no file part named {FILE_FIELD!r}; send the image there")
        return await upload.read()
    finally:
        parser.close()
