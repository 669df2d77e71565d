"""Flags of ``pranet segment``."""

import argparse
from pathlib import Path

from model import targets
from service.commands.flags.settings import add_settings
from service.commands.video.suffixes import LINES

OUTPUTS = ("mask", "probability", "overlay", "json")
SETTINGS = (
    "weights", "device", "engine", "precision", "input_size", "threshold", "max_batch_size", "max_image_bytes",
    "max_image_pixels",
    "max_archive_bytes", "log_level",
)  # fmt: skip
EXAMPLES = """\
examples:
  pranet segment pictures/ -o masks --csv findings.csv
  pranet segment clip.mp4 -o overlay.mp4 --save-masks masks.ndjson
  find /data -name '*.png' | pranet segment --from - -o masks --skip-existing
  curl -s https://example.org/a.jpg | pranet segment - -o - > mask.png
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``pranet segment``."""
    add = parser.add_argument
    add(
        "paths",
        nargs="*",
        type=Path,
        metavar="PATH",
        help="picture, DICOM object, video, or folder of them; - is stdin",
    )
    add("--from", dest="lists", type=Path, action="append", default=[], metavar="FILE",
        help="list of paths, one a line; - is stdin; repeatable")  # fmt: skip
    add(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="output folder; - for stdout, with one picture; X.dcm: a DICOM Segmentation of one object or series; "
        "X.mp4: one video with outlines",
    )
    add("--output", choices=OUTPUTS, default="mask", help="kind of output (default: mask)")
    add("--depth", type=int, choices=(8, 16), default=8, help="bits per pixel of a probability (default: 8)")
    add("--roi", default="full", help="full, auto (without the black border), or x,y,w,h (default: full)")
    add("--jsonl", type=Path, metavar="FILE", help="write a line of JSON about each picture; - is stdout")
    add("--csv", type=Path, metavar="FILE", help="write a row about each picture; - is stdout")
    beside = f"with --out X.mp4: folder for the masks, or X{LINES}: one line of JSON per frame"
    add("--save-masks", type=Path, metavar="PATH", help=beside)
    add("--omit-empty", action="store_true", help="leave frames without a polyp out of a DICOM Segmentation")
    kinds, about = ("binary", "labelmap"), "one bit or one byte per pixel of a DICOM Segmentation (default: binary)"
    add("--segmentation-type", choices=kinds, help=about)
    targets.add_overwrite(parser, skip=True)
    add_settings(parser, SETTINGS)
