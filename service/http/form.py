"""Reads a multipart form (RFC 7578): its files, and its fields, which are options of the request."""

from collections.abc import AsyncGenerator
from typing import NamedTuple

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from service.errors import InvalidRequest

MULTIPART = "multipart/form-data"
FILE_FIELD = "file"
MAX_FIELDS = 8  # more than there are options

Fields = list[tuple[str, str]]  # name and text of each part without a file name


class Form(NamedTuple):
    """The parts of a form."""

    files: list[tuple[str, str, bytes]]  # field, file name and content
    fields: Fields


class _InMemoryParser(MultiPartParser):
    """Keeps all parts in memory; Starlette writes parts over 1 MB to disk, where patient data must not go."""

    spool_max_size = 2**62

    def close(self) -> None:
        """Free parts that were not complete when the body ended."""
        for file in self._files_to_close_on_error:
            file.close()


async def read_form(request: Request, body: AsyncGenerator[bytes, None], most: int, advice: str) -> Form:
    """Read a form of at most ``most`` files; ``Request.form`` has no limits on bytes and time.

    Raises:
        InvalidRequest: the form is invalid; the message ends with ``advice``.
        ServiceError: the same as from ``body``.

    """
    parser = _InMemoryParser(request.headers, body, max_files=most, max_fields=MAX_FIELDS)
    try:
        form = await parser.parse()
        parts = form.multi_items()
        files = [
            (name, part.filename or "", await _taken(part)) for name, part in parts if isinstance(part, UploadFile)
        ]
        return Form(files, [(name, part) for name, part in parts if isinstance(part, str)])
    except (MultiPartException, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the multipart form is invalid ({error}); {advice}") from error
    finally:
        parser.close()


async def _taken(part: UploadFile) -> bytes:
    try:
        return await part.read()
    finally:
        await part.close()
