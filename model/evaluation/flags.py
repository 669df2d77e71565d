"""Flags of ``pranet evaluate``; without PyTorch, so that help comes at once."""

import argparse
from pathlib import Path

from model import targets
from model.training.flags import add_sources

PROTOCOLS = ("fixed", "published")  # of ``model.evaluation.protocols``
EXAMPLES = """\
examples:
  pranet evaluate --weights new.safetensors --images pictures --masks masks --out report
  pranet evaluate --predictions maps --images pictures --masks masks
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``pranet evaluate``."""
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--weights", type=Path, help="evaluate this weights file")
    source.add_argument("--predictions", type=Path, help="judge the maps in this folder, named as the pictures are")
    add_sources(parser)
    add("--protocol", choices=PROTOCOLS, default="fixed")
    add("--out", type=Path, help="folder for a page, tables as JSON and CSV, and pictures of cases")
    add("--baseline", type=Path, help="pictures.csv of an earlier evaluation, for a paired comparison")
    add("--crops", action="store_true", help="also look for false positives on polyp-free crops of the pictures")
    add(
        "--operating-points",
        action="store_true",
        help="also report what every threshold finds and misses, and what it marks wrongly",
    )
    add(
        "--boxes",
        action="store_true",
        help="also test how much the black box of endoscopes changes the results, by painting it in and out",
    )
    add("--calibrate", type=Path, metavar="FILE", help="fit the presence score, write weights with it")
    add(
        "--operate-at",
        type=float,
        default=0.5,
        help="with --calibrate: weights that mark at 0.5 what these mark here",
    )
    targets.add_overwrite(parser)
    add("--device", default="auto")
    add("--precision", default="fp32")
