"""Reads a ``multipart/related`` body (RFC 2387), as DICOMweb stores objects (PS3.18, 10.5.1)."""

from collections.abc import AsyncGenerator
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from service.errors import InvalidRequest

RELATED = "multipart/related"


async def read_related(request: Request, body: AsyncGenerator[bytes, None], most: int) -> list[bytes]:
    """Return the contents of the parts; their headers are not read, since contents say what they are.

    Raises:
        InvalidRequest: the body has no boundary, is incomplete, or has more than ``most`` parts.
        ServiceError: the same as from ``body``.

    """
    _, parameters = parse_options_header(request.headers.get("content-type", ""))
    parts: list[bytearray] = []
    ended: list[bool] = []  # the parser's own ``finalize`` takes a body that was cut off
    callbacks: Any = {
        "on_part_begin": lambda: parts.append(bytearray()),
        "on_part_data": lambda data, start, end: parts[-1].extend(data[start:end]),
        "on_end": lambda: ended.append(True),
    }
    try:
        parser = MultipartParser(parameters.get(b"boundary", b""), callbacks)
        async for chunk in body:
            parser.write(chunk)
            if len(parts) > most:
                raise InvalidRequest(f"the body has more than {most} parts; split it into several requests")
    except FormParserError as error:
        raise InvalidRequest(f"the {RELATED} body is invalid ({error}); send each object as a part") from error
    if not ended:
        raise InvalidRequest(f"the {RELATED} body ends without its last boundary; send all of it")
    return [bytes(part) for part in parts]
