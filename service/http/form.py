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

    is_complete = False

    def on_end(self) -> None:
        """Note that the last boundary has come; a form that is cut off would lose its last part."""
        self.is_complete = True

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
        if not parser.is_complete:
            raise MultiPartException("it ends before its last boundary")
        parts = form.multi_items()
        files = [
            (name, part.filename or "", await _taken(part)) for name, part in parts if isinstance(part, UploadFile)
        ]
        fields = [(name, part) for name, part in parts if isinstance(part, str)]
        if any(name == FILE_FIELD for name, _ in fields):
            raise MultiPartException(f"the part {FILE_FIELD!r} has no file name, so it is not taken for a file")
        return Form(files, fields)
    except (MultiPartException, UnicodeError) as error:
        raise InvalidRequest(f"the multipart form is invalid: {_reason(error, most)}; {advice}") from error
    finally:
        parser.close()


def _reason(error: Exception, most: int) -> str:
    """Return the library's reason, which is a sentence for programmers, as a clause."""
    match str(error).split()[:2]:
        case ["Missing", "boundary"]:
            return "its Content-Type names no boundary; let your HTTP library write that header"
        case ["Too", "many"]:
            return f"it has more than {most} {'file' if most == 1 else 'files'}, or more than {MAX_FIELDS} fields"
    return str(error)[:1].lower() + str(error)[1:].rstrip(".")


async def _taken(part: UploadFile) -> bytes:
    try:
        return await part.read()
    finally:
        await part.close()
