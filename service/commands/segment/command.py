"""``pranet segment``: segments pictures and video files without a server, on the same data path."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from model.targets import Targets
from service.commands.segment.inputs import DASH, listed_in, place, shown, standard_input
from service.commands.segment.jobs import (
    OBJECT,
    OUT,
    AnyJob,
    Drawing,
    NothingToDo,
    Series,
    left_out,
    named,
    plan,
)
from service.commands.segment.report import Report
from service.commands.video.pyav import load_av
from service.commands.video.suffixes import OVERLAYS, VIDEOS
from service.configuration import from_command_line
from service.signals import EndingSignals


def run(arguments: argparse.Namespace) -> int:
    """Segment files and folders (recursively); return 1 if some could not be segmented.

    Raises:
        SettingsError: a setting is unknown or invalid.
        NothingToDo: no picture was found, the arguments do not fit together, or no object can be read without an extra.
        SourceError: no video can be read without PyAV.
        TargetError: an output is an input, exists already, or cannot be written.
        CheckpointError: the weights cannot be used.
        DeviceError: the device is not available.
        KeyboardInterrupt: the user or a signal, which is its argument, ended it; the report tells of what was done.

    """
    from service.batching.device_thread import exit_if_abandoned
    from service.commands.segment.session import segment_all
    from service.dicom.wanted import Wanted
    from service.frames.frame import Options, Output

    settings = from_command_line(arguments)
    options = Options(settings.threshold, Output(arguments.output), arguments.depth, arguments.roi)
    out: Path = arguments.out
    _check(arguments)
    paths = [standard_input(settings.max_archive_bytes) if path == DASH else path for path in arguments.paths]
    listed = [path for file in arguments.lists for path in listed_in(file)]
    found = _found(arguments, [*paths, *listed], listed)
    inputs = [source for each in found for source in each.sources]
    targets = Targets([*inputs, *paths, *listed, *arguments.lists, settings.weights_path], arguments)
    if out != DASH and out.suffix.lower() not in {OBJECT, *OVERLAYS}:
        targets.folder(OUT, out)
    todo = [kept for each in found if (kept := each.wanted(targets))]
    _require_extras(todo)
    # For a Segmentation there are no rows.
    of = {place(shown(job.source)): job for job in todo if not isinstance(job, Series)}

    def segments(source: str, number: int | None) -> bool:
        job = of.get(place(source))
        return job is not None and job.segments(number, targets)

    at_once = any(isinstance(job, Drawing) and job.at_once for job in todo)
    report = Report(arguments.jsonl, arguments.csv, targets, segments, at_once=at_once)
    report.passed = len(found) - len(todo)
    wanted = Wanted(arguments.segmentation_type or "binary", arguments.omit_empty)
    if todo:
        _until_a_signal(lambda signals: segment_all(todo, options, wanted, settings, targets, report, signals))
    else:
        with report:
            pass  # it drops what a kill left of its last row, or gets its header
    written = [path for path in (arguments.jsonl, arguments.csv) if path is not None]
    if others := left_out([*paths, *listed], [*inputs, *written], out):
        print(f"pranet: {others}", file=sys.stderr)
    print(f"pranet: {report.summary()}", file=sys.stderr)
    code = 1 if report.failed else 0
    exit_if_abandoned(code)
    return code


def _require_extras(todo: Sequence[AnyJob]) -> None:
    """Find out that nothing can be read before the weights are loaded, which takes seconds."""
    from service.commands.segment.session import is_video
    from service.dicom import availability
    from service.errors import ServiceError

    if todo and all(is_video(job) for job in todo):
        load_av()
    if todo and all(source.suffix.lower() == OBJECT for job in todo for source in job.sources):
        try:
            availability.require()
        except ServiceError as error:
            raise NothingToDo(str(error)) from error


def _until_a_signal(work: Callable[[EndingSignals], Coroutine[Any, Any, None]]) -> None:
    """Run work to its end, or until a signal ends it, which then is the argument of the ``KeyboardInterrupt``."""
    import uvloop

    signals = EndingSignals()
    try:
        uvloop.run(work(signals))
    except asyncio.CancelledError:
        raise KeyboardInterrupt(*signals.first) from None


def _check(arguments: argparse.Namespace) -> None:
    """Refuse options that do not fit together."""
    kind, series = arguments.out.suffix.lower(), arguments.out.suffix.lower() == OBJECT
    given = {"--omit-empty": arguments.omit_empty, "--segmentation-type": arguments.segmentation_type}
    for flag in (flag for flag, value in given.items() if value and not series):
        raise NothingToDo(f"{flag} applies to a DICOM Segmentation only; use it with --out X.dcm")
    if arguments.save_masks and kind not in OVERLAYS:
        raise NothingToDo("--save-masks applies to a video only; use it with --out X.mp4")
    if series and arguments.output != "mask":
        raise NothingToDo("a DICOM Segmentation holds masks only; leave out --output")
    if series and (arguments.jsonl or arguments.csv):
        raise NothingToDo("--jsonl and --csv have no rows for a DICOM Segmentation; use them with a folder as --out")
    if [arguments.out, arguments.jsonl, arguments.csv].count(DASH) > 1:
        raise NothingToDo("only one of --out, --jsonl and --csv can be -, standard output; give the others a file")
    if arguments.csv and arguments.csv == arguments.jsonl:
        raise NothingToDo("--csv and --jsonl name the same file; give each its own")
    if [*arguments.paths, *arguments.lists].count(DASH) > 1:
        raise NothingToDo("standard input can be read once; give - once")


def _found(arguments: argparse.Namespace, paths: Sequence[Path], listed: Sequence[Path]) -> Sequence[AnyJob]:
    out: Path = arguments.out
    if out.suffix.lower() == OBJECT:
        found: Sequence[AnyJob] = [Series(tuple(dict.fromkeys(file for file, _ in named(paths, out))), out)]
    elif out.suffix.lower() in OVERLAYS:
        found = [Drawing(_one_video(arguments, paths), out, arguments.save_masks)]
    else:
        found = plan(paths, out, ".json" if arguments.output == "json" else ".png", set(listed))
    if not found or not found[0].sources:
        raise NothingToDo("no picture found; give pictures, videos or DICOM objects, or folders of them")
    if out == DASH and found[0].sources[0].suffix.lower() in VIDEOS:
        raise NothingToDo("--out - takes one picture, not a video; give --out X.mp4, or a folder")
    return found


def _one_video(arguments: argparse.Namespace, paths: Sequence[Path]) -> Path:
    if len(paths) != 1 or not paths[0].is_file() or arguments.output not in ("mask", "overlay"):
        raise NothingToDo(f"{arguments.out} holds one video with outlines; give one video file, and no --output")
    return paths[0]
