"""Reads a multipart form (RFC 7578): its files, and its fields, which are options of the request."""

import contextlib
import re
from collections.abc import AsyncGenerator
from typing import NamedTuple
from urllib.parse import unquote

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from service.errors import InvalidRequest
from service.http.accept import PARAMETER

MULTIPART = "multipart/form-data"
FILE_FIELD = "file"
MAX_FIELDS = 8  # more than there are options
EXTENDED = re.compile(r"""filename\*\s*=\s*"?([\w-]+)'[^']*'(.*?)"?""", re.IGNORECASE)  # charset, language, name
HALF = re.compile("[\ud800-\udfff]")

Fields = list[tuple[str, str]]  # name and text of each part without a file name


class Form(NamedTuple):
    """The parts of a form."""

    files: list[tuple[str, str, bytes]]  # field, file name and content
    fields: Fields


class _Malformed(MultiPartException):
    """What this module finds wrong with a form: a clause."""


class _InMemoryParser(MultiPartParser):
    """Keeps all parts in memory; Starlette writes parts over 1 MB to disk, where patient data must not go."""

    spool_max_size = 2**62

    is_complete = False

    def on_headers_finished(self) -> None:
        """Begin a part; one with ``filename*`` is a file of this name, though RFC 7578 has senders leave it out.

        .NET sends it as well as ``filename``, which then is a word that MIME has encoded.
        """
        disposition = self._current_part.content_disposition or b""
        name = _extended_name(disposition.decode("latin-1")) if b"*" in disposition else None
        if name is not None:
            self._current_part.content_disposition = disposition + b'; filename=""'
        super().on_headers_finished()
        if name is not None and self._current_part.file:
            self._current_part.file.filename = name

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
            raise _Malformed("it ends before its last boundary")
        parts = [(_whole(name), part) for name, part in form.multi_items()]
        files = [
            (name, _whole(part.filename or ""), await _taken(part))
            for name, part in parts
            if isinstance(part, UploadFile)
        ]
        fields = [(name, _whole(part)) for name, part in parts if isinstance(part, str)]
        if any(name == FILE_FIELD for name, _ in fields):
            raise _Malformed(f"the part {FILE_FIELD!r} has no file name, so it is not taken for a file")
        return Form(files, fields)
    except (MultiPartException, UnicodeError) as error:
        raise InvalidRequest(f"the multipart form is invalid: {_reason(error, most)}; {advice}") from error
    finally:
        parser.close()


def _extended_name(disposition: str) -> str | None:
    """Return the ``filename*`` of a ``Content-Disposition`` (RFC 6266); None if it has none that can be read."""
    for parameter in PARAMETER.findall(disposition):
        if given := EXTENDED.fullmatch(parameter.strip()):
            with contextlib.suppress(LookupError, UnicodeError):
                return unquote(given[2], given[1])
    return None


def _whole(text: str) -> str:
    """Replace halves of surrogate pairs, which some charsets yield, such as UTF-7: no answer could repeat them."""
    return HALF.sub("\ufffd", text)


def _reason(error: Exception, most: int) -> str:
    """Return what is wrong as a clause; the library's own words are for programmers of servers."""
    match str(error).split()[:2]:
        case _ if isinstance(error, _Malformed):
            return error.message
        case ["Missing", "boundary"]:
            return "its Content-Type names no boundary; let your HTTP library write that header"
        case ["Too", "many"]:
            return f"it has more than {most} {'file' if most == 1 else 'files'}, or more than {MAX_FIELDS} fields"
        case ["The", "Content-Disposition"]:
            return "a part has no name in its Content-Disposition"
        case [_, "exceeded"]:
            return f"a field has more than {_InMemoryParser.max_part_size} bytes"
    return "its boundaries, or the headers or the charset of its parts, cannot be read"


async def _taken(part: UploadFile) -> bytes:
    try:
        return await part.read()
    finally:
        await part.close()
