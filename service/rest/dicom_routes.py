"""``POST /segment`` with ``Content-Type: application/dicom``."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastapi import Request, Response

from service.archives.archive import ARCHIVE_TIMEOUT_SECONDS
from service.batching.queue import Priority
from service.dicom import availability
from service.errors import InvalidParameter
from service.frames.frame import Frame, Output, Segmentation
from service.http.accept import accept_of, negotiated, preferred
from service.http.request import call_of, coding_of, read_zip
from service.rest.archive_routes import ANSWER_TYPES, JSON_TYPE, MIXED, PICTURE_TYPES, PNG_TYPE, ArchiveResponse
from service.rest.requests import OUTPUTS, SegmentQuery
from service.runtime import Service

if TYPE_CHECKING:
    from service.dicom import seg
    from service.dicom.study import Study


DICOM_TYPE = availability.MEDIA_TYPE
LEFT_OUT = "x-left-out"  # attributes of the source that a Segmentation leaves out
OF_ONE = (PNG_TYPE, JSON_TYPE, DICOM_TYPE)  # types of an answer to an object with one frame
OF_SEVERAL = (*ANSWER_TYPES, DICOM_TYPE)
OF_ANY = (*OF_ONE, *ANSWER_TYPES)  # while the number of frames is not known


async def respond(
    request: Request, data: bytes | None, query: SegmentQuery, service: Service
) -> Response | Segmentation:
    """Segment a DICOM object.

    Args:
        request: its body is read here if there is no ``data``.
        data: the object, where it had to be read before it was recognised.
        query: the options of its frames, and of a DICOM Segmentation.
        service: segments them.

    Returns:
        The segmentation of a single frame, a response with one answer for each of several frames, or a response with a
        DICOM Segmentation of all frames, as the request's ``Accept`` prefers.

    Raises:
        InvalidParameter: an option does not apply to the answer that is preferred.
        NotAcceptable: an object with this number of frames has no answer that is accepted.
        NotReady: the object has several frames, and pictures of archives hold all their threads.
        QueueFull: the object is large or has several frames, and ``MAX_ARCHIVES`` archives are in progress.
        ServiceError: the object is refused.

    """
    kind = _kind(request, query, OF_ANY)
    availability.require()
    from service.dicom import study, work

    limits, call = service.settings, call_of(request)
    with contextlib.ExitStack() as held:
        declared = request.headers.get("content-length", "")
        unknown = not declared.isdigit() or int(declared) > limits.max_image_bytes or bool(coding_of(request))
        large = data is None and unknown
        if large:
            held.enter_context(service.archives.place(may_be_single=True))
        if data is None:
            data = (await read_zip(request, limits.max_archive_bytes, call.deadline)).getvalue()
        read: Study = await asyncio.to_thread(study.read, data, limits.max_image_pixels)
        del data
        several = len(read.frames) > 1
        if several and query.output == "maps":
            raise InvalidParameter("output=maps needs an object with one frame; send such an object, or leave it out")
        if several and large:
            service.archives.check_threads()
        elif several:
            held.enter_context(service.archives.place())
        deadline = call.set_deadline(ARCHIVE_TIMEOUT_SECONDS) if several else call.deadline
        if kind != DICOM_TYPE:
            kind = _kind(request, query, OF_SEVERAL if several else OF_ONE)
        if kind == DICOM_TYPE:
            return await _segmentation(read, query, service, deadline)
        if several:
            output = OUTPUTS.get(preferred(accept_of(request), PICTURE_TYPES), Output.MASK)
            options = query.options(limits.threshold, Priority.ARCHIVE, output)
            members = work.members([read])
            return ArchiveResponse(call, members, options, service, held.pop_all(), mixed=kind == MIXED)
        options = query.options(limits.threshold, default_output=OUTPUTS.get(kind, Output.MASK))
        frame = Frame(source=read.frames[0], options=options, deadline=deadline)
        return await service.segmenter.segment(frame)
    raise AssertionError("unreachable")


def _kind(request: Request, query: SegmentQuery, offered: Sequence[str]) -> str:
    """Return the media type out of ``offered`` that a request prefers, after checking its options against it."""
    if query.output and offered != OF_SEVERAL:  # named, so it comes before Accept, which may only add a Segmentation
        named = JSON_TYPE if query.output == "json" else PNG_TYPE
        kind = preferred(accept_of(request), (named, DICOM_TYPE)) or named
    else:
        kind = negotiated(request, offered)
    if kind == DICOM_TYPE and query.output not in (None, "mask"):
        raise InvalidParameter(f"output={query.output} is not available as DICOM; leave it out, or accept another type")
    given = "omit_empty" if query.omit_empty else "segmentation_type" if query.segmentation_type else ""
    by_frames = [preferred(accept_of(request), each) for each in (OF_ONE, OF_SEVERAL)]  # what their number leads to
    may_become_dicom = offered == OF_ANY and DICOM_TYPE in by_frames
    if given and kind != DICOM_TYPE and not may_become_dicom:
        raise InvalidParameter(f"{given} applies to a DICOM Segmentation only; add Accept: {DICOM_TYPE}")
    return kind


async def _segmentation(read: "Study", query: SegmentQuery, service: Service, deadline: float) -> Response:
    from service.dicom import seg, work

    options, kind = query.options(service.settings.threshold), seg.Kind(query.wanted.kind)
    made = await work.segmentation(
        [read], options, service.segmenter, service.archives, deadline, kind, omit_empty=query.omit_empty
    )
    return _response(made)


def _response(made: "seg.Written") -> Response:
    headers = {"x-model": made.model_id} | ({LEFT_OUT: ", ".join(made.left_out)} if made.left_out else {})
    return Response(made.content, media_type=DICOM_TYPE, headers=headers)
