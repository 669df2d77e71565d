"""Reads a ``multipart/related`` body (RFC 2387), as DICOMweb stores objects (PS3.18, 10.5.1)."""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from service.errors import InvalidRequest

RELATED = "multipart/related"
MAX_PREAMBLE_BYTES = 4096


async def read_related(request: Request, body: AsyncGenerator[bytes, None], most: int) -> list[bytes]:
    """Return the contents of the parts; their headers are not read, since contents say what they are.

    Raises:
        InvalidRequest: the content type names no boundary, or the body is incomplete or has more than ``most`` parts.
        ServiceError: the same as from ``body``.

    """
    _, parameters = parse_options_header(request.headers.get("content-type", ""))
    if not (boundary := parameters.get(b"boundary", b"")):
        raise InvalidRequest(f"the Content-Type {RELATED} names no boundary; add the one of the body to it")
    parts: list[bytearray] = []
    ended: list[bool] = []  # the parser's own ``finalize`` takes a body that was cut off
    callbacks: Any = {
        "on_part_begin": lambda: parts.append(bytearray()),
        "on_part_data": lambda data, start, end: parts[-1].extend(data[start:end]),
        "on_end": lambda: ended.append(True),
    }
    try:
        parser = MultipartParser(boundary, callbacks)
        async for chunk in _without_preamble(body, b"--" + boundary):
            parser.write(chunk)
            if len(parts) > most:
                raise InvalidRequest(f"the body has more than {most} parts; split it into several requests")
    except FormParserError as error:
        raise InvalidRequest(
            f"the {RELATED} body is invalid: its boundaries or the headers of its parts cannot be read; "
            "send each object as a part"
        ) from error
    if not ended:
        raise InvalidRequest(f"the {RELATED} body ends without its last boundary; send all of it")
    return [bytes(part) for part in parts]


async def _without_preamble(body: AsyncGenerator[bytes, None], delimiter: bytes) -> AsyncIterator[bytes]:
    """Yield a body from its first delimiter on; the parser takes neither text nor, here, blanks around it (RFC 2046).

    Raises:
        InvalidRequest: there is none in the first ``MAX_PREAMBLE_BYTES``.

    """
    line = re.compile(rb"(?:\A|\n)" + re.escape(delimiter) + rb"(--|[ \t]*\r\n)")
    head = b""
    async for chunk in body:
        head += chunk
        first = line.search(head)
        if (first.start() if first else len(head)) > MAX_PREAMBLE_BYTES:
            break
        if first:
            yield delimiter + first[1].lstrip(b" \t") + head[first.end() :]
            async for chunk in body:
                yield chunk
            return
    told = "name the one that it has, and send all of it"
    raise InvalidRequest(f"the {RELATED} body does not begin with the boundary of its Content-Type; {told}")
