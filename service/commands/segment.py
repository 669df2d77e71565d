"""``pranet segment``: segments pictures and video files without a server, on the same data path."""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import NoReturn

import uvloop
from tqdm import tqdm

from model.errors import UserError
from pranet_client.sources import in_thread
from service.answers import SegmentationBody
from service.archives import archive as archives
from service.batching.device_thread import exit_if_abandoned
from service.commands.video import VIDEOS, open_source, paced
from service.dicom import extra
from service.errors import ServiceError
from service.frames.frame import Frame, Options, Output, Segmentation
from service.readiness import Phase
from service.runtime import Service, load_predictor, running
from service.settings import Settings, add_flags, from_command_line
from service.streams.frame import StreamFrame
from service.streams.stream import StreamOptions
from service.streams.window import Policy

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".dcm"})
OBJECT = ".dcm"  # of DICOM
SETTINGS = (
    "weights", "device", "engine", "precision", "threshold", "max_batch_size", "max_image_bytes", "max_image_pixels",
    "log_level",
)  # fmt: skip
AT_ONCE_PER_BATCH = 2  # one batch on the device while the next is decoded


class NothingToDo(UserError):
    """The paths hold no picture, or the arguments do not fit together."""


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
    add_flags(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Segment files and folders (recursively); return 1 if some could not be segmented.

    Raises:
        SettingsError: a setting is unknown or invalid.
        NothingToDo: no picture was found, or the arguments do not fit together.
        CheckpointError: the weights cannot be used.
        DeviceError: the device is not available.

    """
    settings = from_command_line(arguments)
    options = Options(settings.threshold, Output(arguments.output), arguments.depth, arguments.roi)
    segmentation = arguments.out.suffix.lower() == OBJECT
    if arguments.omit_empty and not segmentation:
        raise NothingToDo("--omit-empty applies to a DICOM Segmentation only; use it with --out X.dcm")
    if segmentation:
        jobs = {_one_object(arguments.paths, options): arguments.out}
    else:
        jobs = plan(arguments.paths, arguments.out, suffix_of(options))
    if not jobs:
        raise NothingToDo(f"no picture found; give files, or folders that hold {', '.join(sorted(SUFFIXES))}")
    failed = uvloop.run(_segment_all(jobs, options, settings, omit_empty=arguments.omit_empty))
    print(f"pranet: {len(jobs) - failed} of {len(jobs)} segmented into {arguments.out}", file=sys.stderr)
    code = 1 if failed else 0
    exit_if_abandoned(code)
    return code


def plan(paths: Iterable[Path], out: Path, suffix: str) -> dict[Path, Path]:
    """Map each picture or video to its output file; if two names collide, the second also keeps its original suffix.

    Raises:
        NothingToDo: a path does not exist, or two pictures still collide.

    """
    sources: list[tuple[Path, Path]] = []
    for path in paths:
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
            sources += [(file, file.relative_to(path)) for file in found]
        elif path.exists():
            sources.append((path, Path(path.name)))
        else:
            raise NothingToDo(f"{path} does not exist; give pictures, videos or folders of pictures")
    jobs: dict[Path, Path] = {}
    taken: set[Path] = set()
    for source, name in sources:
        target = out / name.with_suffix(suffix)
        if target in taken:
            target = out / name.with_name(name.name + suffix)
        if target in taken:
            raise NothingToDo(f"two pictures would be written to {target}; segment them into different folders")
        taken.add(target)
        jobs[source] = target
    return jobs


def _one_object(paths: list[Path], options: Options) -> Path:
    if len(paths) != 1 or paths[0].suffix.lower() != OBJECT or options.output is not Output.MASK:
        raise NothingToDo("a DICOM Segmentation holds the masks of one object; give one .dcm file, and no --output")
    return paths[0]


async def _segment_all(jobs: dict[Path, Path], options: Options, settings: Settings, *, omit_empty: bool) -> int:
    async with running(settings, load_predictor(settings)) as service:
        service.readiness.enter(Phase.SERVING)  # without a warm-up: a slow first frame does not matter here
        places = asyncio.Semaphore(AT_ONCE_PER_BATCH * service.max_batch_size)
        with tqdm(total=len(jobs), unit="image", disable=None) as bar:

            async def one(source: Path, target: Path) -> bool:
                async with places:
                    done = await _segment_one(service, source, target, options, bar, omit_empty=omit_empty)
                bar.update()
                return done

            outcomes = await asyncio.gather(*(one(source, target) for source, target in jobs.items()))
    return outcomes.count(False)


async def _segment_one(
    service: Service, source: Path, target: Path, options: Options, bar: "tqdm[NoReturn]", *, omit_empty: bool
) -> bool:
    if source.suffix.lower() in VIDEOS:
        return await _segment_video(service, source, target.with_suffix(""), options, bar)
    if source.suffix.lower() == OBJECT:
        return await _segment_object(service, source, target, options, bar, omit_empty=omit_empty)
    deadline = asyncio.get_running_loop().time() + service.settings.request_timeout_ms / 1e3
    try:
        image = await asyncio.to_thread(_read, source, service.settings.max_image_bytes)
        segmentation = await service.segmenter.segment(Frame(source=image, options=options, deadline=deadline))
    except (ServiceError, OSError) as error:
        bar.write(f"{source}: {error}", file=sys.stderr)
        return False
    await asyncio.to_thread(_write, target, _content(segmentation, source.name))
    return True


async def _segment_object(
    service: Service, source: Path, target: Path, options: Options, bar: "tqdm[NoReturn]", *, omit_empty: bool
) -> bool:
    """Segment a DICOM object into a DICOM Segmentation, one picture, or a folder with one picture per frame."""
    failed = 0

    async def write(answer: archives.Answered) -> None:
        nonlocal failed
        name = f"{answer.member.index:08d}" + suffix_of(options)
        path = target if count == 1 else target.with_suffix("") / name
        if isinstance(answer.outcome, Segmentation):
            await asyncio.to_thread(_write, path, _content(answer.outcome, path.name))
        else:
            failed += 1
            bar.write(f"{source}, frame {answer.member.name}: {answer.outcome}", file=sys.stderr)

    try:
        extra.require()
        from service.dicom import study, work

        data = await asyncio.to_thread(_read, source, service.settings.max_archive_bytes)
        read = await asyncio.to_thread(study.read, data, service.settings.max_image_pixels)
        deadline = asyncio.get_running_loop().time() + archives.ARCHIVE_TIMEOUT_SECONDS
        if target.suffix.lower() == OBJECT:
            made = await work.segmentation(read, options, service, deadline, omit_empty=omit_empty)
            await asyncio.to_thread(_write, target, made)
            return True
        count = len(read.frames)
        await service.archives.answer_all(work.members(read), options, deadline, write)
    except (ServiceError, OSError) as error:
        bar.write(f"{source}: {error}", file=sys.stderr)
        return False
    return not failed


async def _segment_video(service: Service, source: Path, folder: Path, options: Options, bar: "tqdm[NoReturn]") -> bool:
    """Segment every frame of a video into a folder, as a stream with policy ``every``."""
    failed = 0

    async def frames() -> AsyncIterator[StreamFrame]:
        opened = await asyncio.to_thread(open_source, str(source), raw=True)
        async for frame in in_thread(paced(opened, None, None, hold=False)):
            yield StreamFrame(frame_id=frame.frame_id, source=frame.picture)

    async def write(answer: StreamFrame) -> None:
        nonlocal failed
        if isinstance(answer.outcome, Segmentation):
            name = f"{answer.frame_id:08d}" + suffix_of(options)
            await asyncio.to_thread(_write, folder / name, _content(answer.outcome, name))
        else:
            failed += 1
            bar.write(f"{source}, frame {answer.frame_id}: {answer.outcome}", file=sys.stderr)

    with service.streams.open(StreamOptions(Policy.EVERY, frame=options)) as stream:
        await stream.run(frames(), write)
    return not failed


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
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
