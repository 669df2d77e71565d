"""Segments the frames of a DICOM object, each separately or all of them into one DICOM Segmentation."""

import asyncio
from dataclasses import replace

from model.engines.predictor import ModelRef
from service.archives.archive import Answered
from service.archives.members import Member
from service.batching.queue import Priority
from service.dicom import seg
from service.dicom.study import Study
from service.errors import ServiceError
from service.frames.frame import Frame, MaskFormat, Options, Output
from service.runtime import Service


def members(study: Study) -> list[Member]:
    """Return the frames as members of an archive, named by their numbers from 1, as DICOM counts."""
    return [Member(index, str(index + 1), read) for index, read in enumerate(study.frames)]


async def segmentation(study: Study, options: Options, service: Service, deadline: float, *, omit_empty: bool) -> bytes:
    """Return the bytes of a DICOM Segmentation; several frames have the priority of an archive.

    Raises:
        ServiceError: a frame failed (the message names it), or no Segmentation can be made of the object.

    """
    seg.check(study.dataset, len(study.frames))
    options = replace(options, output=Output.MASK, mask_format=MaskFormat.BITS)
    masks: list[bytes] = []
    models: list[ModelRef] = []

    async def keep(answer: Answered) -> None:
        if isinstance(answer.outcome, ServiceError):
            raise type(answer.outcome)(f"frame {answer.member.name}: {answer.outcome.detail}")
        masks.append(answer.outcome.bits)
        models[:] = [answer.outcome.model]

    if len(study.frames) == 1:
        frame = Frame(source=study.frames[0], options=options, deadline=deadline)
        await keep(Answered(members(study)[0], await service.segmenter.segment(frame)))
    else:
        archive_options = replace(options, priority=Priority.ARCHIVE)
        await service.archives.answer_all(members(study), archive_options, deadline, keep)
    return await asyncio.to_thread(seg.write, study.dataset, masks, models[0], omit_empty=omit_empty)
