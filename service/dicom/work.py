"""Segments the frames of a DICOM object, each separately or all of them into one DICOM Segmentation."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import inf

from pydicom import Dataset

from model.engines.predictor import ModelRef
from service.archives.archive import Answered, Archives
from service.archives.members import Member
from service.batching.queue import Priority
from service.dicom import seg
from service.dicom.study import Study
from service.errors import ServiceError
from service.frames.frame import Frame, MaskFormat, Options, Output
from service.frames.segmenter import Segmenter


def members(studies: Sequence[Study]) -> list[Member]:
    """Return the frames of objects as members of an archive, named by their numbers from 1, as DICOM counts."""
    frames = [frame for study in studies for frame in study.frames]
    return [Member(index, str(index + 1), read) for index, read in enumerate(frames)]


def in_order(studies: Iterable[Study]) -> list[Study]:
    """Return the objects of a series by their numbers; those without one come last, as they were given."""
    return sorted(studies, key=lambda study: number_of(study.dataset))


def number_of(dataset: Dataset) -> float:
    """Return the number of an object in its series; infinity if it has none."""
    try:
        return int(dataset.InstanceNumber)
    except (AttributeError, TypeError, ValueError, OverflowError):
        return inf


async def segmentation(
    studies: Sequence[Study],
    options: Options,
    segmenter: Segmenter,
    archives: Archives,
    deadline: float,
    kind: seg.Kind,
    *,
    omit_empty: bool,
) -> seg.Written:
    """Return a DICOM Segmentation of all frames of objects; several frames have the priority of an archive.

    Raises:
        ServiceError: a frame failed (the message names it), or no Segmentation can be made of the objects.

    """
    sources = [study.dataset for study in studies]
    seg.check(sources)
    options = replace(options, output=Output.MASK, mask_format=MaskFormat.BITS)
    masks: list[bytes] = []
    models: list[ModelRef] = []

    async def keep(answer: Answered) -> None:
        if isinstance(answer.outcome, ServiceError):
            raise _of_frame(answer.outcome, answer.member.name)
        masks.append(answer.outcome.bits)
        models[:] = [answer.outcome.model]

    frames = [frame for study in studies for frame in study.frames]
    if len(frames) == 1:
        frame = Frame(source=frames[0], options=options, deadline=deadline)
        await keep(Answered(members(studies)[0], await segmenter.segment(frame)))
    else:
        archive_options = replace(options, priority=Priority.ARCHIVE)
        await archives.answer_all(members(studies), archive_options, deadline, keep)
    return await asyncio.to_thread(seg.write, sources, masks, models[0], kind, omit_empty=omit_empty)


def _of_frame(error: ServiceError, name: str) -> ServiceError:
    """Put the number of the frame before the message of an error."""
    error.detail = f"frame {name}: {error.detail}"
    error.args = (error.detail,)
    return error
