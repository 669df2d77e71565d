"""``pranet segment``: segments pictures and video files without a server, on the same data path."""

import argparse
import asyncio
import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NoReturn

import uvloop
from tqdm import tqdm

from model.errors import UserError
from service.archives import archive as archives
from service.batching.device_thread import exit_if_abandoned
from service.commands.segment.videos import LINES, OVERLAYS, Results, asked, content, segment_video, suffix_of
from service.commands.video.pyav import SourceError
from service.commands.video.source import PICTURES, VIDEOS, open_source
from service.dicom import extra
from service.errors import ServiceError
from service.frames.frame import Frame, Options, Output, Segmentation
from service.readiness import Phase
from service.runtime import Service, load_predictor, running
from service.settings import Settings, add_flags, from_command_line

OBJECT = ".dcm"  # of DICOM
SUFFIXES = PICTURES | VIDEOS | {OBJECT}
SETTINGS = (
    "weights", "device", "engine", "precision", "threshold", "max_batch_size", "max_image_bytes", "max_image_pixels",
    "log_level",
)  # fmt: skip
AT_ONCE_PER_BATCH = 2  # one batch on the device while the next is decoded


class NothingToDo(UserError):
    """The paths hold no picture or video, or the arguments do not fit together."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``pranet segment``."""
    add = parser.add_argument
    add("paths", nargs="+", type=Path, metavar="PATH", help="picture, DICOM object, video, or folder of them")
    add(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="output folder; X.dcm: a DICOM Segmentation of one object; X.mp4: one video with outlines, without sound",
    )
    outputs = [each.value for each in Output if each is not Output.MAPS]  # maps would need a second network
    add("--output", choices=outputs, default="mask", help="kind of output (default: mask)")
    add("--depth", type=int, choices=(8, 16), default=8, help="bits per pixel of a probability (default: 8)")
    add("--roi", default="full", help="full, auto (without the black border), or x,y,w,h (default: full)")
    beside = f"with --out X.mp4: folder for the masks, or X{LINES}: one line of JSON per frame"
    add("--save-masks", type=Path, metavar="PATH", help=beside)
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
    overlay = _overlay_of(arguments)
    jobs: Mapping[Path, Path | None]
    if segmentation:
        jobs = {_one_object(arguments.paths, options): arguments.out}
    elif overlay:
        jobs = {arguments.paths[0]: arguments.save_masks}
    else:
        jobs = plan(arguments.paths, arguments.out, suffix_of(options))
    if not jobs:
        raise NothingToDo("no picture found; give pictures, videos or DICOM objects, or folders of them")
    failed = uvloop.run(_segment_all(jobs, options, settings, omit_empty=arguments.omit_empty, overlay=overlay))
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


def _overlay_of(arguments: argparse.Namespace) -> Path | None:
    """Return the video to write, if ``--out`` names one."""
    out: Path = arguments.out
    if out.suffix.lower() not in OVERLAYS:
        if arguments.save_masks:
            raise NothingToDo("--save-masks applies to a video only; use it with --out X.mp4")
        return None
    if len(arguments.paths) != 1 or not arguments.paths[0].is_file() or arguments.output not in ("mask", "overlay"):
        raise NothingToDo(f"{out} holds one video with outlines; give one video file, and no --output")
    return out


async def _segment_all(
    jobs: Mapping[Path, Path | None], options: Options, settings: Settings, *, omit_empty: bool, overlay: Path | None
) -> int:
    """Segment files at once, but videos one by one; return how many failed."""
    async with running(settings, load_predictor(settings)) as service:
        service.readiness.enter(Phase.SERVING)  # without a warm-up: a slow first frame does not matter here
        places, one_video = asyncio.Semaphore(AT_ONCE_PER_BATCH * service.max_batch_size), asyncio.Lock()
        with tqdm(total=len(jobs), unit="frame", disable=None) as bar:

            async def one(source: Path, target: Path | None) -> bool:
                try:
                    if overlay or target is None or source.suffix.lower() in VIDEOS:
                        async with one_video:
                            return await _segment_video(service, source, target, overlay, options, bar)
                    async with places:
                        done = await _segment_one(service, source, target, options, bar, omit_empty=omit_empty)
                except (ServiceError, SourceError) as error:
                    bar.write(f"{source}: {error}", file=sys.stderr)
                    done = False
                bar.update()
                return done

            outcomes = await asyncio.gather(*(one(source, target) for source, target in jobs.items()))
    return outcomes.count(False)


async def _segment_one(
    service: Service, source: Path, target: Path, options: Options, bar: "tqdm[NoReturn]", *, omit_empty: bool
) -> bool:
    if source.suffix.lower() == OBJECT:
        return await _segment_object(service, source, target, options, bar, omit_empty=omit_empty)
    image = await asyncio.to_thread(_read, source, service.settings.max_image_bytes)
    segmentation = await service.segmenter.segment(Frame(source=image, options=options))
    await asyncio.to_thread(_write, target, content(segmentation, source.name))
    return True


async def _segment_video(
    service: Service,
    source: Path,
    masks: Path | None,
    overlay: Path | None,
    options: Options,
    bar: "tqdm[NoReturn]",
) -> bool:
    """Segment a video into a folder or lines of JSON, and an overlay; the bar counts its frames instead of it."""

    def done(number: int, error: ServiceError | None) -> None:
        bar.update()
        if error:
            bar.write(f"{source}, frame {number}: {error}", file=sys.stderr)

    opened = await asyncio.to_thread(open_source, str(source), raw=True)
    expected = opened.count or 1
    bar.total = (bar.total or 0) + expected - 1
    if masks is not None and not overlay:
        masks = masks.with_suffix("")
    with Results(masks, overlay, opened, options, _write) as results:
        findings = await segment_video(service, opened, results, asked(options, masks), done)
    bar.total = (bar.total or 0) + findings.frames + findings.failed - expected
    bar.write(f"{source}: {findings.summary()}", file=sys.stderr)
    return not findings.failed


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
            await asyncio.to_thread(_write, path, content(answer.outcome, path.name))
        else:
            failed += 1
            bar.write(f"{source}, frame {answer.member.name}: {answer.outcome}", file=sys.stderr)

    extra.require()
    from service.dicom import seg, study, work

    data = await asyncio.to_thread(_read, source, service.settings.max_archive_bytes)
    read = await asyncio.to_thread(study.read, data, service.settings.max_image_pixels)
    if target.suffix.lower() == OBJECT:
        made = await work.segmentation([read], options, service, math.inf, seg.Kind.BINARY, omit_empty=omit_empty)
        await asyncio.to_thread(_write, target, made.content)
        return True
    count = len(read.frames)
    await service.archives.answer_all(work.members([read]), options, math.inf, write)
    return not failed


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise SourceError(f"has {size} bytes, more than --max-image-bytes {max_bytes}")
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror}") from error


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
