"""DICOM objects in ``pranet segment``: each into pictures, or all of one series into one DICOM Segmentation."""

import asyncio
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import SourceError
from pranet_client.pictures import Picture
from service.archives.members import Member
from service.commands.segment.inputs import shown
from service.commands.segment.jobs import OUT, Series, holds_object
from service.commands.segment.outputs import read, write
from service.dicom import availability
from service.dicom.wanted import Wanted
from service.errors import ServiceError
from service.frames.frame import Options
from service.runtime import Service

if TYPE_CHECKING:
    from service.dicom.seg import Written
    from service.dicom.study import Study

LIMIT = "--max-archive-bytes"

Note = Callable[[object, object], object]  # tells about a file


async def read_objects(service: Service, sources: Sequence[Path], note: Note) -> "list[Study]":
    """Read objects, without those that hold no pictures, such as a Segmentation in the folder of a series, and copies.

    Raises:
        SourceError: a file cannot be read, all of them have more than ``max_archive_bytes``, or two with the same
            SOPInstanceUID differ.
        ServiceError: an object is refused, or DICOM is not installed.

    """
    availability.require()
    from service.dicom import study

    found, room = [], service.settings.max_archive_bytes
    first: dict[str, tuple[Path, bytes]] = {}  # the file and its digest, by SOPInstanceUID
    for source in sources:
        try:
            data = await asyncio.to_thread(read, source, room, LIMIT)
            each = await asyncio.to_thread(study.read, data, service.settings.max_image_pixels)
            uid = str(each.dataset.get("SOPInstanceUID", ""))
            digest = (await asyncio.to_thread(hashlib.sha256, data)).digest()
            other, expected = first.setdefault(uid, (source, digest)) if uid else (source, digest)
            if digest != expected:
                raise SourceError(f"has the SOPInstanceUID of {shown(other)}, but other contents; leave one out")
            if other != source:
                note(source, f"skipped: it is a copy of {shown(other)}")
                continue
            found.append(replace(each, name=shown(source)))
            room -= len(data)
        except study.NoPicture as error:
            note(source, f"skipped: {error}")
        except (ServiceError, SourceError) as error:
            if len(sources) == 1:
                raise
            raise SourceError(f"{shown(source)}: {error}") from error
    return found


def holding(member: Member, held: dict[int, Picture]) -> Member:
    """Return a frame that puts its picture into ``held``, by its number, for what is drawn on it afterwards.

    To decode a frame of a video again would begin with the first one.
    """

    def read() -> Picture:
        picture = held[member.index] = member.read()
        return picture

    return replace(member, read=read)


async def segment_series(service: Service, job: Series, options: Options, wanted: Wanted, note: Note) -> "Written":
    """Segment all objects of a series into one DICOM Segmentation, in the order of their numbers.

    Raises:
        SourceError: no object with pictures is there, or see ``read_objects``.
        ServiceError: a frame failed, or no Segmentation can be made of the objects.
        TargetError: the Segmentation cannot be written.

    """
    objects = [source for source in job.sources if await asyncio.to_thread(holds_object, source)]
    for other in set(job.sources).difference(objects):
        note(other, "skipped: not a DICOM object")
    found = await read_objects(service, objects, note)
    if not found:
        raise SourceError("no DICOM object with pictures found; give one, or the folder of a series")
    from service.dicom import seg, work

    kind, segmenter, archives = seg.Kind(wanted.kind), service.segmenter, service.archives
    made = await work.segmentation(
        work.in_order(found), options, segmenter, archives, math.inf, kind, omit_empty=wanted.omit_empty
    )
    if made.left_out:
        note(job.target, f"left out {', '.join(made.left_out)}, which do not follow the DICOM standard")
    await asyncio.to_thread(write, OUT, job.target, made.content)
    return made
