"""``POST /segment/batch``: many pictures in one call, each answered as soon as it is segmented.

The request is a zip (``application/zip``) or a multipart form of files. ``Accept`` chooses the response: NDJSON, with
one object per line and the PNG in base64, or ``multipart/mixed``, with one part per picture. Both give the index, file
name and status of every picture.
"""

import asyncio
import base64
import contextlib
import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from starlette.types import Message, Receive, Scope, Send

from service.answers import SegmentationBody, describe
from service.archives.archive import ARCHIVE_TIMEOUT_SECONDS, Answered
from service.archives.members import Member, from_parts, from_zip
from service.calls import Call
from service.errors import ClientLeft, ServiceError, UnsupportedImage
from service.frames.foreign import ZIP_TYPES
from service.frames.frame import JUDGED, Options, Output, Segmentation
from service.http.form import MULTIPART, Fields
from service.http.multipart_related import RELATED
from service.http.request import UNSPECIFIC, content_type, read_parts, read_related_parts, read_zip
from service.rest.errors import PROBLEM_TYPE
from service.runtime import Service

SMALL_BYTES = 256 * 2**10  # of an archive whose directory is read at once; a large one would hold up all answers
NDJSON, MIXED = "application/x-ndjson", "multipart/mixed"
PNG_TYPE, JSON_TYPE = "image/png", "application/json"
ANSWER_TYPES = (NDJSON, MIXED, JSON_TYPE)  # the last means NDJSON, with output=json
PICTURE_TYPES = (PNG_TYPE, NDJSON, JSON_TYPE)  # of the answer to one picture; the second is a PNG in base64


class ArchiveResponse(Response):
    """Segments an archive while it sends the answers, in order, each as soon as it and those before it are ready."""

    def __init__(
        self,
        call: Call,
        members: Sequence[Member],
        options: Options,
        service: Service,
        held: contextlib.ExitStack,
        *,
        mixed: bool,
    ) -> None:
        """Prepare the response, ``multipart/mixed`` or NDJSON; ``held`` is closed after the last answer."""
        self._boundary = uuid.uuid4().hex if mixed else ""
        media_type = f"{MIXED}; boundary={self._boundary}" if self._boundary else NDJSON
        super().__init__(media_type=media_type, headers={"x-pictures": str(len(members))})
        del self.headers["content-length"]
        self._call = call
        self._members = members
        self._options = options
        self._service = service
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all answers; if the client disconnects or does not read, drop the remaining work."""

        async def send_answer(answer: Answered) -> None:
            if isinstance(answer.outcome, ServiceError):
                self._service.calls.reject(answer.outcome)
            data = await asyncio.to_thread(_encoded, answer, self._call.request_id, self._boundary)
            await self._send(send, {"type": "http.response.body", "body": data, "more_body": True})

        with self._held:
            deadline = self._call.set_deadline(ARCHIVE_TIMEOUT_SECONDS, of_parts=True)
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            answering = self._service.archives.answer_all(self._members, self._options, deadline, send_answer)
            await asyncio.ensure_future(answering)  # a separate task resumes without waking the coroutines around it
            end = f"--{self._boundary}--\r\n".encode() if self._boundary else b""
            await self._send(send, {"type": "http.response.body", "body": end})  # waits for the last answer to be read

    async def _send(self, send: Send, message: Message) -> None:
        try:
            async with asyncio.timeout(self._service.settings.request_timeout_ms / 1e3):
                await send(message)
        except TimeoutError:  # otherwise it would occupy one of MAX_ARCHIVES places without end
            raise ClientLeft("the client does not read its answers") from None


async def respond(
    request: Request, call: Call, options: Callable[[Fields], Options], service: Service, *, mixed: bool
) -> Response:
    """Read an archive; return the response that segments its pictures while it is sent.

    Args:
        request: its body must not have been read.
        call: the call of the request.
        options: returns the options of the pictures for the fields of the form, if the archive is one.
        service: segments the pictures.
        mixed: answer as ``multipart/mixed`` instead of NDJSON.

    Raises:
        QueueFull: ``MAX_ARCHIVES`` archives are in progress.
        ServiceError: the archive as a whole is refused; an error of one picture goes into its answer instead.

    """
    with contextlib.ExitStack() as held:
        held.enter_context(service.archives.place())
        members, fields = await _members(request, service, call.deadline)
        return ArchiveResponse(call, members, options(fields), service, held.pop_all(), mixed=mixed)
    raise AssertionError("unreachable")


async def _members(request: Request, service: Service, deadline: float) -> tuple[list[Member], Fields]:
    """Receive the archive until ``deadline``, which does not limit the segmentation."""
    limits = service.settings
    kind = content_type(request)
    if kind == MULTIPART:
        parts, fields = await read_parts(request, limits.max_archive_bytes, deadline)
        return from_parts(parts, limits.max_image_bytes), fields
    if kind == RELATED:
        parts = await read_related_parts(request, limits.max_archive_bytes, deadline)
        return from_parts(parts, limits.max_image_bytes), []
    if kind not in (*ZIP_TYPES, *UNSPECIFIC):
        raise UnsupportedImage(
            f"the content type is {kind}, not that of an archive; send {ZIP_TYPES[0]}, {MULTIPART} or {RELATED}"
        )
    archive = await read_zip(request, limits.max_archive_bytes, deadline)
    if archive.getbuffer().nbytes < SMALL_BYTES:
        return from_zip(archive, limits.max_image_bytes), []
    return await asyncio.to_thread(from_zip, archive, limits.max_image_bytes), []


def _encoded(answer: Answered, request_id: str, boundary: str) -> bytes:
    return _part(answer, request_id, boundary) if boundary else _line(answer, request_id)


def _line(answer: Answered, request_id: str) -> bytes:
    line: dict[str, Any] = {"index": answer.member.index, "name": answer.member.name, "status": _status(answer)}
    done = answer.outcome
    if isinstance(done, ServiceError):
        line["error"] = done.problem(request_id)
    elif done.options.output is Output.JSON:
        line["segmentation"] = SegmentationBody.of(done, request_id).model_dump()
    else:
        judged = {"quality": done.quality} if done.options.output in JUDGED else {}
        line |= {**describe(done), **judged, "png": base64.b64encode(done.png).decode()}
    return json.dumps(line).encode() + b"\n"


def _part(answer: Answered, request_id: str, boundary: str) -> bytes:
    kind, content = _content(answer.outcome, request_id)
    head = "".join(f"{name}: {value}\r\n" for name, value in _headers(answer, kind, len(content)))
    return b"".join((f"--{boundary}\r\n{head}\r\n".encode(), content, b"\r\n"))


def _content(done: Segmentation | ServiceError, request_id: str) -> tuple[str, bytes]:
    if isinstance(done, ServiceError):
        return PROBLEM_TYPE, json.dumps(done.problem(request_id)).encode()
    if done.options.output is Output.JSON:
        return JSON_TYPE, SegmentationBody.of(done, request_id).model_dump_json().encode()
    return PNG_TYPE, done.png


def _headers(answer: Answered, kind: str, length: int) -> Iterator[tuple[str, str]]:
    yield "Content-Type", kind
    yield "Content-Length", str(length)
    yield "Content-Disposition", f"attachment; filename*=UTF-8''{quote(answer.member.name, safe='', errors='replace')}"
    yield "X-Index", str(answer.member.index)
    yield "X-Status", str(_status(answer))
    if isinstance(answer.outcome, Segmentation):
        yield from answer.outcome.headers().items()


def _status(answer: Answered) -> int:
    return answer.outcome.status if isinstance(answer.outcome, ServiceError) else 200
