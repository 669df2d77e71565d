"""Segments what ``pranet segment`` found, on the data path of the service."""

import asyncio
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from model.files import Targets
from service.archives import archive as archives
from service.commands.segment.jobs import OBJECT, OUT, Drawing, Job, Series, holds_object
from service.commands.segment.objects import Wanted, read_objects, segment_series
from service.commands.segment.outputs import asked, content, read, write
from service.commands.segment.videos import Results, segment_video
from service.commands.video.pyav import SourceError
from service.commands.video.source import open_source
from service.commands.video.suffixes import PICTURES, VIDEOS
from service.errors import ServiceError
from service.frames.frame import Frame, Options, Segmentation
from service.readiness import Phase
from service.runtime import Service, load_predictor, running
from service.settings import Settings

AnyJob = Job | Series | Drawing

AT_ONCE_PER_BATCH = 2  # one batch on the device while the next is decoded


async def segment_all(
    jobs: Sequence[AnyJob], options: Options, wanted: Wanted, settings: Settings, targets: Targets
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
            session = Session(service, options, wanted, targets, bar)

            async def one(job: AnyJob) -> bool:
                async with one_video if _is_video(job) else places:
                    return await session.segment(job)

            outcomes = await asyncio.gather(*map(one, jobs))
    return outcomes.count(False)


def _other_object(path: Path) -> bool:
    """Say whether a file is a DICOM object though its name says nothing of it."""
    return path.suffix.lower() not in PICTURES and holds_object(path)


def _is_video(job: AnyJob) -> bool:
    return isinstance(job, Drawing) or (isinstance(job, Job) and job.source.suffix.lower() in VIDEOS)


class Session:
    """One run over all jobs, each with the same options."""

    def __init__(
        self, service: Service, options: Options, wanted: Wanted, targets: Targets, bar: "tqdm[NoReturn]"
    ) -> None:
        self._service = service
        self._options = options
        self._wanted = wanted
        self._targets = targets
        self._bar = bar

    async def segment(self, job: AnyJob) -> bool:
        """Do one job; return whether all of it could be segmented, and say otherwise what could not."""
        try:
            if isinstance(job, Series):
                await segment_series(self._service, job, self._options, self._wanted, self._note)
                done = True
            elif isinstance(job, Drawing) or job.source.suffix.lower() in VIDEOS:
                return await self._video(job)  # it moves the bar itself
            elif job.source.suffix.lower() == OBJECT or await asyncio.to_thread(_other_object, job.source):
                done = await self._object(job)
            else:
                done = await self._picture(job)
        except (ServiceError, SourceError) as error:
            done = self._note(job.target if isinstance(job, Series) else job.source, error)
        self._bar.update()
        return done

    def _note(self, what: object, error: object) -> bool:
        self._bar.write(f"{what}: {error}", file=sys.stderr)
        return False

    async def _picture(self, job: Job) -> bool:
        image = await asyncio.to_thread(read, job.source, self._service.settings.max_image_bytes, "--max-image-bytes")
        segmentation = await self._service.segmenter.segment(Frame(source=image, options=self._options))
        await asyncio.to_thread(write, OUT, job.target, content(segmentation, job.source.name))
        return True

    async def _video(self, job: Job | Drawing) -> bool:
        """Segment a video into a folder or lines of JSON, and an overlay; the bar counts its frames instead of it."""

        def done(number: int, error: ServiceError | None) -> None:
            self._bar.update()
            if error:
                self._note(f"{job.source}, frame {number}", error)

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
        """Segment a DICOM object into one picture, or a folder with one picture per frame."""
        done = True

        async def keep(answer: archives.Answered) -> None:
            nonlocal done
            if isinstance(answer.outcome, Segmentation):
                path = job.target if single else job.frame(answer.member.index)
                await asyncio.to_thread(write, OUT, path, content(answer.outcome, path.name))
            else:
                done = self._note(f"{job.source}, frame {answer.member.name}", answer.outcome)

        found = await read_objects(self._service, [job.source], self._note)
        from service.dicom import work

        members = work.members(found)
        single = len(members) == 1
        todo = [each for each in members if single or self._targets.wants(OUT, job.frame(each.index))]
        await self._service.archives.answer_all(todo, self._options, math.inf, keep)
        return done
