"""``pranet segment``: segments pictures and video files without a server, on the same data path."""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import uvloop
from tqdm import tqdm

from model import files
from model.files import Targets
from pranet_client.client import in_thread
from service.answers import SegmentationBody
from service.archives import archive as archives
from service.batching.device_thread import exit_if_abandoned
from service.commands.jobs import OBJECT, OUT, SUFFIXES, Job, NothingToDo, plan, wanted
from service.commands.video import VIDEOS, open_source, paced
from service.dicom import extra
from service.errors import ServiceError
from service.frames.frame import Frame, Options, Output, Segmentation
from service.readiness import Phase
from service.runtime import load_predictor, running
from service.settings import Settings, add_flags, from_command_line
from service.streams.frame import StreamFrame
from service.streams.stream import StreamOptions
from service.streams.window import Policy

SETTINGS = (
    "weights", "device", "engine", "precision", "threshold", "max_batch_size", "max_image_bytes", "max_image_pixels",
    "log_level",
)  # fmt: skip
AT_ONCE_PER_BATCH = 2  # one batch on the device while the next is decoded


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``pranet segment``."""
    add = parser.add_argument
    add("paths", nargs="+", type=Path, metavar="PATH", help="picture, DICOM object, video, or folder of pictures")
    add(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="output folder, or X.dcm: a DICOM Segmentation of one object",
    )
    outputs = [each.value for each in Output if each is not Output.MAPS]  # maps would need a second network
    add("--output", choices=outputs, default="mask", help="kind of output (default: mask)")
    add("--depth", type=int, choices=(8, 16), default=8, help="bits per pixel of a probability (default: 8)")
    add("--roi", default="full", help="full, auto (without the black border), or x,y,w,h (default: full)")
    add("--omit-empty", action="store_true", help="leave frames without a polyp out of a DICOM Segmentation")
    files.add_overwrite(parser, skip=True)
    add_flags(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Segment files and folders (recursively); return 1 if some could not be segmented.

    Raises:
        SettingsError: a setting is unknown or invalid.
        NothingToDo: no picture was found, or the arguments do not fit together.
        TargetError: an output is an input, exists already, or cannot be written.
        CheckpointError: the weights cannot be used.
        DeviceError: the device is not available.

    """
    settings = from_command_line(arguments)
    options = Options(settings.threshold, Output(arguments.output), arguments.depth, arguments.roi)
    segmentation = arguments.out.suffix.lower() == OBJECT
    if arguments.omit_empty and not segmentation:
        raise NothingToDo("--omit-empty applies to a DICOM Segmentation only; use it with --out X.dcm")
    if segmentation:
        found = [Job(_one_object(arguments.paths, options), arguments.out)]
    else:
        found = plan(arguments.paths, arguments.out, suffix_of(options))
    if not found:
        raise NothingToDo(f"no picture found; give files, or folders that hold {', '.join(sorted(SUFFIXES))}")
    inputs = [*(job.source for job in found), *arguments.paths, settings.weights_path]
    targets = Targets(inputs, arguments)
    if not segmentation:
        targets.folder(OUT, arguments.out)
    jobs = wanted(found, targets)
    if passed := len(found) - len(jobs):
        print(f"pranet: {passed} of {len(found)} have their output already", file=sys.stderr)
    failed = uvloop.run(_Run(options, settings, targets, omit_empty=arguments.omit_empty).all(jobs)) if jobs else 0
    print(f"pranet: {len(jobs) - failed} of {len(jobs)} segmented into {arguments.out}", file=sys.stderr)
    code = 1 if failed else 0
    exit_if_abandoned(code)
    return code


def _one_object(paths: list[Path], options: Options) -> Path:
    if len(paths) != 1 or paths[0].suffix.lower() != OBJECT or options.output is not Output.MASK:
        raise NothingToDo("a DICOM Segmentation holds the masks of one object; give one .dcm file, and no --output")
    return paths[0]


class _Run:
    """One run over all jobs, each with the same options."""

    def __init__(self, options: Options, settings: Settings, targets: Targets, *, omit_empty: bool) -> None:
        self._options = options
        self._settings = settings
        self._targets = targets
        self._omit_empty = omit_empty

    async def all(self, jobs: Sequence[Job]) -> int:
        """Segment everything, and return how many pictures, videos or objects failed."""
        async with running(self._settings, load_predictor(self._settings)) as self._service:
            self._service.readiness.enter(Phase.SERVING)  # without a warm-up: a slow first frame does not matter here
            places = asyncio.Semaphore(AT_ONCE_PER_BATCH * self._service.max_batch_size)
            with tqdm(total=len(jobs), unit="image", disable=None) as self._bar:

                async def one(job: Job) -> bool:
                    async with places:
                        done = await self._one(job)
                    self._bar.update()
                    return done

                outcomes = await asyncio.gather(*map(one, jobs))
        return outcomes.count(False)

    async def _one(self, job: Job) -> bool:
        if job.source.suffix.lower() in VIDEOS:
            return await self._video(job)
        if job.source.suffix.lower() == OBJECT:
            return await self._object(job)
        deadline = asyncio.get_running_loop().time() + self._settings.request_timeout_ms / 1e3
        try:
            image = await asyncio.to_thread(_read, job.source, self._settings.max_image_bytes)
            frame = Frame(source=image, options=self._options, deadline=deadline)
            segmentation = await self._service.segmenter.segment(frame)
        except (ServiceError, OSError) as error:
            return self._failed(job.source, error)
        await asyncio.to_thread(_write, job.target, _content(segmentation, job.source.name))
        return True

    def _failed(self, what: object, error: object) -> bool:
        self._bar.write(f"{what}: {error}", file=sys.stderr)
        return False

    async def _object(self, job: Job) -> bool:
        """Segment a DICOM object into a DICOM Segmentation, one picture, or a folder with one picture per frame."""
        done = True

        async def write(answer: archives.Answered) -> None:
            nonlocal done
            if isinstance(answer.outcome, Segmentation):
                path = job.target if single else job.frame(answer.member.index)
                await asyncio.to_thread(_write, path, _content(answer.outcome, path.name))
            else:
                done = self._failed(f"{job.source}, frame {answer.member.name}", answer.outcome)

        try:
            extra.require()
            from service.dicom import study, work

            data = await asyncio.to_thread(_read, job.source, self._settings.max_archive_bytes)
            read = await asyncio.to_thread(study.read, data, self._settings.max_image_pixels)
            deadline = asyncio.get_running_loop().time() + archives.ARCHIVE_TIMEOUT_SECONDS
            if job.target.suffix.lower() == OBJECT:
                service, empty = self._service, self._omit_empty
                made = await work.segmentation(read, self._options, service, deadline, omit_empty=empty)
            else:
                single = len(read.frames) == 1
                members = [each for each in work.members(read) if single or self._wants(job, each.index)]
                await self._service.archives.answer_all(members, self._options, deadline, write)
                return done
        except (ServiceError, OSError) as error:
            return self._failed(job.source, error)
        await asyncio.to_thread(_write, job.target, made)
        return True

    async def _video(self, job: Job) -> bool:
        """Segment every frame of a video into a folder, as a stream with policy ``every``."""
        done = True

        async def frames() -> AsyncIterator[StreamFrame]:
            opened = await asyncio.to_thread(open_source, str(job.source), raw=True)
            async for frame in in_thread(paced(opened, None, None, hold=False)):
                if self._wants(job, frame.frame_id):
                    yield StreamFrame(frame_id=frame.frame_id, source=frame.picture)

        async def write(answer: StreamFrame) -> None:
            nonlocal done
            if isinstance(answer.outcome, Segmentation):
                path = job.frame(answer.frame_id)
                await asyncio.to_thread(_write, path, _content(answer.outcome, path.name))
            else:
                done = self._failed(f"{job.source}, frame {answer.frame_id}", answer.outcome)

        with self._service.streams.open(StreamOptions(Policy.EVERY, frame=self._options)) as stream:
            await stream.run(frames(), write)
        return done

    def _wants(self, job: Job, number: int) -> bool:
        return self._targets.wants(OUT, job.frame(number))


def suffix_of(options: Options) -> str:
    """Return the suffix of output files, ``.json`` or ``.png``."""
    return ".json" if options.output is Output.JSON else ".png"


def _content(segmentation: Segmentation, name: str) -> bytes:
    if segmentation.options.output is Output.JSON:
        return SegmentationBody.of(segmentation, request_id=name).model_dump_json(indent=2).encode()
    return segmentation.png


def _read(path: Path, max_bytes: int) -> bytes:
    size = path.stat().st_size
    if size > max_bytes:
        raise OSError(f"has {size} bytes, more than --max-image-bytes {max_bytes}")
    return path.read_bytes()


def _write(path: Path, content: bytes) -> None:
    with files.writing(OUT, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, content)
