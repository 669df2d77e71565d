"""Segments the frames of a DICOM object, each separately or all of them into one DICOM Segmentation."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import inf

from pydicom import Dataset

from service.archives.archive import Answered, Archives
from service.archives.members import Member
from service.batching.queue import Priority
from service.dicom import seg
from service.dicom.study import Study
from service.errors import ServiceError
from service.frames.frame import Frame, MaskFormat, Options, Output, Segmentation, outdated
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
    """Return a DICOM Segmentation of all frames of objects, all with the same weights.

    Several frames have the priority of an archive.

    Raises:
        ServiceError: a frame failed (the message names it), or no Segmentation can be made of the objects.

    """
    sources = [study.dataset for study in studies]
    seg.check(sources)
    options = replace(options, output=Output.MASK, mask_format=MaskFormat.BITS)
    frames = members(studies)
    found: dict[int, Segmentation] = {}

    async def keep(answer: Answered) -> None:
        if isinstance(answer.outcome, ServiceError):
            raise _of_frame(answer.outcome, studies, answer.member.index)
        found[answer.member.index] = answer.outcome

    todo = frames
    while todo:
        if len(frames) == 1:
            frame = Frame(source=frames[0].read, options=options, deadline=deadline)
            await keep(Answered(frames[0], await segmenter.segment(frame)))
        else:
            await archives.answer_all(todo, replace(options, priority=Priority.ARCHIVE), deadline, keep)
        answers = [found[member.index] for member in frames]
        todo = [frames[index] for index in outdated(answers)]
    masks, model = [answer.bits for answer in answers], answers[0].model
    return await asyncio.to_thread(seg.write, sources, masks, model, kind, omit_empty=omit_empty)


def _of_frame(error: ServiceError, studies: Sequence[Study], index: int) -> ServiceError:
    """Put before the message of an error which frame it is of."""
    error.detail = f"{_place(studies, index)}: {error.detail}"
    error.args = (error.detail,)
    return error


def _place(studies: Sequence[Study], index: int) -> str:
    """Return the number of a frame, from 1, or the name of its object if there are several."""
    first = 0
    for study in studies:
        if study.name and len(studies) > 1 and index < first + len(study.frames):
            return study.name if len(study.frames) == 1 else f"{study.name}, frame {index - first + 1}"
        first += len(study.frames)
    return f"frame {index + 1}"
