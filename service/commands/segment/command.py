"""``pranet segment``: segments pictures and video files without a server, on the same data path."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from model import files
from model.files import Targets
from service.batching.device_thread import exit_if_abandoned
from service.commands.segment.jobs import LINES, OBJECT, OUT, OVERLAYS, Drawing, Job, NothingToDo, Series, named, plan
from service.commands.segment.objects import Wanted
from service.commands.segment.outputs import suffix_of
from service.commands.segment.session import segment_all
from service.frames.frame import Options, Output
from service.settings import add_flags, from_command_line

SETTINGS = (
    "weights", "device", "engine", "precision", "threshold", "max_batch_size", "max_image_bytes", "max_image_pixels",
    "max_archive_bytes", "log_level",
)  # fmt: skip


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
        help="output folder; X.dcm: a DICOM Segmentation of one object or series; X.mp4: one video with outlines",
    )
    outputs = [each.value for each in Output if each is not Output.MAPS]  # maps would need a second network
    add("--output", choices=outputs, default="mask", help="kind of output (default: mask)")
    add("--depth", type=int, choices=(8, 16), default=8, help="bits per pixel of a probability (default: 8)")
    add("--roi", default="full", help="full, auto (without the black border), or x,y,w,h (default: full)")
    beside = f"with --out X.mp4: folder for the masks, or X{LINES}: one line of JSON per frame"
    add("--save-masks", type=Path, metavar="PATH", help=beside)
    add("--omit-empty", action="store_true", help="leave frames without a polyp out of a DICOM Segmentation")
    kinds, about = ("binary", "labelmap"), "one bit or one byte per pixel of a DICOM Segmentation (default: binary)"
    add("--segmentation-type", choices=kinds, help=about)
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
    out: Path = arguments.out
    if (arguments.omit_empty or arguments.segmentation_type) and out.suffix.lower() != OBJECT:
        flag = "--omit-empty" if arguments.omit_empty else "--segmentation-type"
        raise NothingToDo(f"{flag} applies to a DICOM Segmentation only; use it with --out X.dcm")
    if arguments.save_masks and out.suffix.lower() not in OVERLAYS:
        raise NothingToDo("--save-masks applies to a video only; use it with --out X.mp4")
    found = _found(arguments, options)
    targets = Targets(
        [*(source for each in found for source in each.sources), *arguments.paths, settings.weights_path], arguments
    )
    if out.suffix.lower() not in {OBJECT, *OVERLAYS}:
        targets.folder(OUT, out)
    todo = [kept for each in found if (kept := each.wanted(targets))]
    if passed := len(found) - len(todo):
        print(f"pranet: {passed} of {len(found)} have their output already", file=sys.stderr)
    failed = 0
    if todo:
        wanted = Wanted(arguments.segmentation_type or "binary", arguments.omit_empty)
        failed = uvloop.run(segment_all(todo, options, wanted, settings, targets))
    print(f"pranet: {len(todo) - failed} of {len(todo)} segmented into {out}", file=sys.stderr)
    code = 1 if failed else 0
    exit_if_abandoned(code)
    return code


def _found(arguments: argparse.Namespace, options: Options) -> Sequence[Job | Series | Drawing]:
    out: Path = arguments.out
    if out.suffix.lower() == OBJECT:
        if options.output is not Output.MASK:
            raise NothingToDo("a DICOM Segmentation holds masks; leave --output out")
        return [Series(tuple(dict.fromkeys(file for file, _ in named(arguments.paths, out))), out)]
    if out.suffix.lower() in OVERLAYS:
        return [Drawing(_one_video(arguments), out, arguments.save_masks)]
    found = plan(arguments.paths, out, suffix_of(options))
    if not found:
        raise NothingToDo("no picture found; give pictures, videos or DICOM objects, or folders of them")
    return found


def _one_video(arguments: argparse.Namespace) -> Path:
    if len(arguments.paths) != 1 or not arguments.paths[0].is_file() or arguments.output not in ("mask", "overlay"):
        raise NothingToDo(f"{arguments.out} holds one video with outlines; give one video file, and no --output")
    source: Path = arguments.paths[0]
    return source
