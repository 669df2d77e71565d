"""``POST /segment`` with ``Content-Type: application/dicom``."""

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from fastapi import Request, Response

from service.archives.archive import PATIENCE_SECONDS
from service.batching.queue import Priority
from service.dicom import extra
from service.frames.frame import Options
from service.frames.segmenter import Segmentation
from service.http.body import content_type, read_zip
from service.http.request import timeout_seconds, unless_client_leaves
from service.rest import archive_routes
from service.runtime import Service

if TYPE_CHECKING:
    from service.dicom.study import Study


def is_dicom(request: Request) -> bool:
    """Tell whether the body is a DICOM object."""
    return content_type(request) == extra.MEDIA_TYPE


def wants_dicom(request: Request) -> bool:
    """Tell whether the answer is to be a DICOM Segmentation."""
    return extra.MEDIA_TYPE in request.headers.get("accept", "")


async def respond(request: Request, options: Options, service: Service, *, omit_empty: bool) -> Response | Segmentation:
    """Segment an object: one frame as any picture, several as an archive, or all into a DICOM Segmentation.

    Raises:
        QueueFull: the object is large or has several frames, and ``MAX_ARCHIVES`` are at work.
        ServiceError: the object is refused.

    """
    extra.require()
    from service.dicom import study, work

    limits = service.settings
    now = asyncio.get_running_loop().time()
    with contextlib.ExitStack() as held:
        declared = request.headers.get("content-length", "")
        large = not declared.isdigit() or int(declared) > limits.max_image_bytes
        if large:
            held.enter_context(service.archives.place())
        soon = now + timeout_seconds(request, limits.request_timeout_ms)
        data = (await read_zip(request, limits.max_archive_bytes, soon)).getvalue()
        read: Study = await asyncio.to_thread(study.read, data, limits.max_image_pixels)
        del data
        several = len(read.frames) > 1
        if several and not large:
            held.enter_context(service.archives.place())
        deadline = now + timeout_seconds(request, round(PATIENCE_SECONDS * 1e3)) if several else soon
        if wants_dicom(request):
            made = work.segmentation(read, options, service, deadline, omit_empty=omit_empty)
            return Response(await unless_client_leaves(request, made), media_type=extra.MEDIA_TYPE)
        if several:
            bulk = replace(options, priority=Priority.ARCHIVE)
            return archive_routes.streamed(request, work.members(read), bulk, service, deadline, held.pop_all())
        return await unless_client_leaves(request, service.segmenter.segment(read.frames[0], options, deadline))
    raise AssertionError("unreachable")
