"""Segments what ``pranet segment`` found, on the data path of the service."""

import asyncio
import math
import sys
from collections.abc import Sequence
from typing import NoReturn

from tqdm import tqdm

from model.files import Targets
from service.archives import archive as archives
from service.commands.segment.jobs import OBJECT, OUT, Drawing, Job
from service.commands.segment.outputs import asked, content, read, write
from service.commands.segment.videos import Results, segment_video
from service.commands.video.pyav import SourceError
from service.commands.video.source import open_source
from service.commands.video.suffixes import VIDEOS
from service.dicom import extra
from service.errors import ServiceError
from service.frames.frame import Frame, Options, Segmentation
from service.readiness import Phase
from service.runtime import Service, load_predictor, running
from service.settings import Settings

AT_ONCE_PER_BATCH = 2  # one batch on the device while the next is decoded


async def segment_all(
    jobs: Sequence[Job | Drawing], options: Options, settings: Settings, targets: Targets, *, omit_empty: bool
) -> int:
    """Segment files at once, but videos one by one; return how many failed.

    Raises:
        TargetError: an output cannot be written.
        CheckpointError: the weights cannot be used.
        DeviceError: the device is not available.

    """
    async with running(settings, load_predictor(settings)) as service:
        service.readiness.enter(Phase.SERVING)  # without a warm-up: a slow first frame does not matter here
        places, one_video = asyncio.Semaphore(AT_ONCE_PER_BATCH * service.max_batch_size), asyncio.Lock()
        with tqdm(total=len(jobs), unit="frame", disable=None) as bar:
            session = Session(service, options, targets, bar, omit_empty=omit_empty)

            async def one(job: Job | Drawing) -> bool:
                video = isinstance(job, Drawing) or job.source.suffix.lower() in VIDEOS
                async with one_video if video else places:
                    return await session.segment(job)

            outcomes = await asyncio.gather(*map(one, jobs))
    return outcomes.count(False)


class Session:
    """One run over all jobs, each with the same options."""

    def __init__(
        self, service: Service, options: Options, targets: Targets, bar: "tqdm[NoReturn]", *, omit_empty: bool
    ) -> None:
        self._service = service
        self._options = options
        self._targets = targets
        self._bar = bar
        self._omit_empty = omit_empty

    async def segment(self, job: Job | Drawing) -> bool:
        """Segment one file; return whether all of it could be segmented, and say otherwise what could not."""
        try:
            if isinstance(job, Drawing) or job.source.suffix.lower() in VIDEOS:
                return await self._video(job)  # it moves the bar itself
            done = await (self._object(job) if job.source.suffix.lower() == OBJECT else self._picture(job))
        except (ServiceError, SourceError) as error:
            done = self._failed(job.source, error)
        self._bar.update()
        return done

    def _failed(self, what: object, error: object) -> bool:
        self._bar.write(f"{what}: {error}", file=sys.stderr)
        return False

    async def _picture(self, job: Job) -> bool:
        image = await asyncio.to_thread(read, job.source, self._service.settings.max_image_bytes)
        segmentation = await self._service.segmenter.segment(Frame(source=image, options=self._options))
        await asyncio.to_thread(write, OUT, job.target, content(segmentation, job.source.name))
        return True

    async def _video(self, job: Job | Drawing) -> bool:
        """Segment a video into a folder or lines of JSON, and an overlay; the bar counts its frames instead of it."""

        def done(number: int, error: ServiceError | None) -> None:
            self._bar.update()
            if error:
                self._failed(f"{job.source}, frame {number}", error)

        def wants(number: int) -> bool:
            return isinstance(job, Drawing) or self._targets.wants(OUT, job.frame(number))

        opened = await asyncio.to_thread(open_source, str(job.source), raw=True)
        expected = opened.count or 1
        self._bar.total = (self._bar.total or 0) + expected - 1
        overlay, masks = (job.overlay, job.masks) if isinstance(job, Drawing) else (None, job.folder)
        with Results(masks, overlay, opened, self._options) as results:
            options = asked(self._options, masks)
            findings = await segment_video(self._service, opened, results, options, done, wants)
        self._bar.total = (self._bar.total or 0) + findings.frames + findings.failed - expected
        self._bar.write(f"{job.source}: {findings.summary()}", file=sys.stderr)
        return not findings.failed

    async def _object(self, job: Job) -> bool:
        """Segment a DICOM object into a DICOM Segmentation, one picture, or a folder with one picture per frame."""
        done = True

        async def keep(answer: archives.Answered) -> None:
            nonlocal done
            if isinstance(answer.outcome, Segmentation):
                path = job.target if single else job.frame(answer.member.index)
                await asyncio.to_thread(write, OUT, path, content(answer.outcome, path.name))
            else:
                done = self._failed(f"{job.source}, frame {answer.member.name}", answer.outcome)

        extra.require()
        from service.dicom import seg, study, work

        service = self._service
        data = await asyncio.to_thread(read, job.source, service.settings.max_archive_bytes)
        found = await asyncio.to_thread(study.read, data, service.settings.max_image_pixels)
        if job.target.suffix.lower() == OBJECT:
            made = await work.segmentation(
                [found], self._options, service, math.inf, seg.Kind.BINARY, omit_empty=self._omit_empty
            )
            await asyncio.to_thread(write, OUT, job.target, made.content)
            return True
        single = len(found.frames) == 1
        members = [each for each in work.members([found]) if single or self._targets.wants(OUT, job.frame(each.index))]
        await service.archives.answer_all(members, self._options, math.inf, keep)
        return done
