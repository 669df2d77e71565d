"""``POST /segment`` with ``Content-Type: application/dicom``."""

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from fastapi import Request, Response

from service.archives.archive import ARCHIVE_TIMEOUT_SECONDS
from service.batching.queue import Priority
from service.dicom import availability
from service.dicom.wanted import Wanted
from service.frames.frame import Frame, Options, Segmentation
from service.http.accept import accept_of, preferred
from service.http.request import call_of, coding_of, read_zip
from service.rest import archive_routes
from service.runtime import Service

if TYPE_CHECKING:
    from service.dicom import seg
    from service.dicom.study import Study


LEFT_OUT = "x-left-out"  # attributes of the source that a Segmentation leaves out


async def respond(
    request: Request, data: bytes | None, options: Options, service: Service, wanted: Wanted | None
) -> Response | Segmentation:
    """Segment a DICOM object.

    Args:
        request: its body is read here if there is no ``data``.
        data: the object, where it had to be read before it was recognised.
        options: of its frames.
        service: segments them.
        wanted: a DICOM Segmentation of all frames; None for an answer for each.

    Returns:
        The segmentation of a single frame, a response with one answer for each of several frames, or (with
        ``wanted``) a response with a DICOM Segmentation of all frames.

    Raises:
        QueueFull: the object is large or has several frames, and ``MAX_ARCHIVES`` archives are in progress.
        ServiceError: the object is refused.

    """
    availability.require()
    from service.dicom import seg, study, work

    limits, call = service.settings, call_of(request)
    with contextlib.ExitStack() as held:
        declared = request.headers.get("content-length", "")
        unknown = not declared.isdigit() or int(declared) > limits.max_image_bytes or bool(coding_of(request))
        large = data is None and unknown
        if large:
            held.enter_context(service.archives.place())
        if data is None:
            data = (await read_zip(request, limits.max_archive_bytes, call.deadline)).getvalue()
        read: Study = await asyncio.to_thread(study.read, data, limits.max_image_pixels)
        del data
        several = len(read.frames) > 1
        if several and not large:
            held.enter_context(service.archives.place())
        deadline = call.set_deadline(ARCHIVE_TIMEOUT_SECONDS) if several else call.deadline
        if wanted:
            kind = seg.Kind(wanted.kind)
            made = await work.segmentation(
                [read], options, service.segmenter, service.archives, deadline, kind, omit_empty=wanted.omit_empty
            )
            return _response(made)
        if several:
            archive_options = replace(options, priority=Priority.ARCHIVE)
            mixed = preferred(accept_of(request), archive_routes.ANSWER_TYPES) == archive_routes.MIXED
            members = work.members([read])
            return archive_routes.ArchiveResponse(call, members, archive_options, service, held.pop_all(), mixed=mixed)
        frame = Frame(source=read.frames[0], options=options, deadline=deadline)
        return await service.segmenter.segment(frame)
    raise AssertionError("unreachable")


def _response(made: "seg.Written") -> Response:
    headers = {"x-model": made.model_id} | ({LEFT_OUT: ", ".join(made.left_out)} if made.left_out else {})
    return Response(made.content, media_type=availability.MEDIA_TYPE, headers=headers)
