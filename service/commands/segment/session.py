"""Segments what ``pranet segment`` found, on the data path of the service."""

import asyncio
import contextlib
import math
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from model.errors import SourceError
from model.targets import Targets
from model.transforms import Pixels
from pranet_client.pictures import Picture
from service.archives import archive as archives
from service.batching.batcher import MOST_HANG_SECONDS
from service.commands.segment.inputs import DASH, shown
from service.commands.segment.jobs import MASKS, OBJECT, OUT, AnyJob, Drawing, Job, Series, holds_object
from service.commands.segment.objects import holding, read_objects, segment_series
from service.commands.segment.outputs import EarlierFrames, asked, content, mask_of, read, row_of, write
from service.commands.segment.report import Report
from service.commands.segment.rows import Row
from service.commands.segment.videos import Findings, Results, segment_video
from service.commands.video.source import open_source
from service.commands.video.suffixes import VIDEOS
from service.dicom.wanted import Wanted
from service.errors import ServiceError
from service.frames.codec import Packed
from service.frames.frame import Frame, Options, Output, Segmentation
from service.readiness import Phase
from service.runtime import Service, load_predictor, running
from service.settings import Settings
from service.signals import EndingSignals
from service.tasks import FirstErrorTaskGroup, to_its_end

AT_ONCE_PER_BATCH = 2  # one batch on the device while the next is decoded
LARGE_BYTES = 16 * 2**20  # of a file: more is a DICOM object of many frames, which is held up to three times


async def segment_all(
    jobs: Sequence[AnyJob],
    options: Options,
    wanted: Wanted,
    settings: Settings,
    targets: Targets,
    report: Report,
    signals: EndingSignals,
) -> None:
    """Segment files at once, but videos and large files one by one.

    The first of the ``signals`` cancels it, once it has begun; what is being written then gets its row.

    Raises:
        TargetError: an output cannot be written.
        CheckpointError: the weights cannot be used.
        DeviceError: the device is not available.

    """
    predictor = load_predictor(settings)  # if it fails, the report keeps the rows of what was to be segmented again
    signals.end_this_task()
    with report, tqdm(total=len(jobs), unit="file", disable=None) as bar:
        async with running(settings, predictor, hang_seconds=MOST_HANG_SECONDS) as service:
            service.readiness.enter(Phase.SERVING)  # without a warm-up: a slow first frame does not matter here
            session = Session(service, options, wanted, targets, report, bar)
            await _segment_at_once(session, jobs, AT_ONCE_PER_BATCH * service.max_batch_size)


async def _segment_at_once(session: "Session", jobs: Sequence[AnyJob], most: int) -> None:
    places = asyncio.Semaphore(most)
    one_video, one_large = asyncio.Lock(), asyncio.Lock()

    async def one(job: AnyJob) -> None:
        async with one_video if is_video(job) else places:
            is_large = not is_video(job) and await asyncio.to_thread(_bytes, job) > LARGE_BYTES
            async with one_large if is_large else contextlib.nullcontext():
                await session.segment(job)

    async with FirstErrorTaskGroup() as tasks:
        for job in jobs:
            tasks.create_task(one(job))


def _bytes(job: AnyJob) -> int:
    with contextlib.suppress(OSError):  # reading it will say so
        return sum(source.stat().st_size for source in job.sources)
    return 0


def is_video(job: AnyJob) -> bool:
    """Return whether a job is a video."""
    return isinstance(job, Drawing) or (isinstance(job, Job) and job.source.suffix.lower() in VIDEOS)


class Session:
    """One run over all jobs, each with the same options."""

    def __init__(
        self,
        service: Service,
        options: Options,
        wanted: Wanted,
        targets: Targets,
        report: Report,
        bar: "tqdm[NoReturn]",
    ) -> None:
        self._service = service
        self._options = options
        self._asked = asked(options)
        self._wanted = wanted
        self._targets = targets
        self._report = report
        self._bar = bar

    async def segment(self, job: AnyJob) -> None:
        """Do one job, and report on it; say what could not be segmented."""
        try:
            if isinstance(job, Series):
                made = await segment_series(self._service, job, self._options, self._wanted, self._note)
                self._report.count(made.frames, made.with_polyp)
            elif isinstance(job, Drawing) or job.source.suffix.lower() in VIDEOS:
                return await self._video(job)  # it moves the bar itself
            elif job.source.suffix.lower() == OBJECT or await asyncio.to_thread(holds_object, job.source):
                await self._object(job)
            else:
                await self._picture(job)
        except (ServiceError, SourceError) as error:
            self._failed(job.target if isinstance(job, Series) else job.source, None, error)
        self._bar.update()

    def _note(self, what: object, text: object) -> None:
        self._bar.write(f"{what}: {text}", file=sys.stderr)

    def _failed(self, source: Path, number: int | None, error: object, *, counted_from: int = 0) -> None:
        frame = "" if number is None else f", frame {number + counted_from}"
        self._note(f"{shown(source)}{frame}", error)
        self._report.add(Row(shown(source), number, error=str(error)))

    def _tell(self, earlier: EarlierFrames, folder: Path | None) -> None:
        if rest := earlier.rest():
            self._note(folder, rest)

    async def _write(self, job: Job, path: Path, number: int | None, done: Segmentation, picture: Packed) -> None:
        def make() -> Row:
            mask = mask_of(done)
            write(OUT, path, content(done, self._options, mask, picture, path.name))
            return row_of(job.source, number, done, mask)

        async def record() -> None:
            self._report.add(await asyncio.to_thread(make))

        await to_its_end(record())

    async def _picture(self, job: Job) -> None:
        image = await asyncio.to_thread(read, job.source, self._service.settings.max_image_bytes, "--max-image-bytes")
        done = await self._service.segmenter.segment(Frame(source=image, options=self._asked, waits_for_place=True))
        await self._write(job, job.target, None, done, lambda: image)

    async def _video(self, job: Job | Drawing) -> None:
        """Segment a video into a folder or lines of JSON, and an overlay; the bar counts its frames instead of it."""

        def done(number: int, outcome: Segmentation | ServiceError, mask: Pixels | None) -> None:
            self._bar.update()
            earlier.replaced(number, failed=mask is None)
            if isinstance(outcome, ServiceError):
                self._failed(job.source, number, outcome)
            elif mask is not None:
                self._report.add(row_of(job.source, number, outcome, mask))

        if isinstance(job, Drawing):
            overlay, masks, flag = job.overlay, job.masks, MASKS
        else:
            overlay, masks, flag = None, job.folder, OUT
        earlier, findings = EarlierFrames(flag, masks, self._options, self._targets), Findings()
        try:
            opened = await asyncio.to_thread(open_source, str(job.source), raw=True)
            expected = opened.count or 1
            self._bar.total = (self._bar.total or 0) + expected - 1
            with Results(masks, overlay, opened, self._options, flag, self._targets) as results:
                options = asked(self._options, masks)
                wants = partial(job.segments, targets=self._targets)
                await segment_video(self._service, opened, results, options, done, findings, wants)
        except SourceError as error:
            self._bar.update()
            self._failed(job.source, None, error)
        else:
            self._bar.total = (self._bar.total or 0) + findings.frames + findings.failed - expected
        self._report.passed += findings.passed
        if findings.frames + findings.failed + findings.passed:
            self._note(shown(job.source), findings.summary())
            self._tell(earlier, masks)

    async def _object(self, job: Job) -> None:
        """Segment a DICOM object into one picture, or a folder with one picture per frame."""
        held: dict[int, Picture] = {}

        async def keep(answer: archives.Answered) -> None:
            picture, number = held.pop(answer.member.index, None), None if single else answer.member.index
            if number is not None:
                earlier.replaced(number, failed=isinstance(answer.outcome, ServiceError))
            if isinstance(answer.outcome, ServiceError):
                return self._failed(job.source, number, answer.outcome, counted_from=1)  # as DICOM does
            path = job.target if number is None else job.frame(number)
            await self._write(job, path, number, answer.outcome, lambda: picture or answer.member.read())

        found = await read_objects(self._service, [job.source], self._note)
        from service.dicom import work

        members = work.members(found)
        single = len(members) == 1
        if job.target == DASH and len(members) > 1:
            raise SourceError(f"has {len(members)} frames, and standard output takes one; give a folder as --out")
        todo = [each for each in members if job.segments(None if single else each.index, self._targets)]
        self._report.passed += len(members) - len(todo)
        folder = None if job.target == DASH else job.folder
        earlier = EarlierFrames(OUT, folder, self._options, self._targets)
        if self._options.output is Output.OVERLAY:
            todo = [holding(each, held) for each in todo]
        await self._service.archives.answer_all(todo, self._asked, math.inf, keep)
        self._tell(earlier, folder)
