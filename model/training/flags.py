"""Flags of ``pranet train``, and those that name pictures; without PyTorch, so that help comes at once."""

import argparse
import math
from pathlib import Path

from model.training import recipe

EXAMPLES = """\
examples:
  pranet train finetune --images pictures --masks masks --out run --init weights/pranet.safetensors
  pranet train finetune --images pictures --masks masks --out run --resume
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``pranet train``."""
    add = parser.add_argument
    add("recipe", help=f"a recipe of the package ({', '.join(recipe.names())}) or a TOML file")
    add_sources(parser)
    add("--out", type=Path, required=True, help="folder for weights, state and log")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--init", type=Path, help="start from these weights instead of random ones")
    start.add_argument(
        "--backbone",
        type=Path,
        help="start from an ImageNet backbone as published: Res2Net-50 v1b; for a teacher EfficientNet-Lite2",
    )
    add(
        "--teacher",
        type=Path,
        action="append",
        default=[],
        help="weights of the recipe teacher, for the recipe distilled; repeatable",
    )
    once = parser.add_mutually_exclusive_group()
    once.add_argument("--resume", action="store_true", help="continue the run in --out")
    once.add_argument("--overwrite", action="store_true", help="start over and replace the run in --out")
    add("--validation", type=Path, help="list of names to validate on, and not to train on")
    add("--validate-every", type=_count, default=250, metavar="STEPS")
    add("--save-every", type=_count, default=100, metavar="STEPS")
    add("--steps", type=_count, help="steps to train, instead of those of the recipe")
    add("--minutes", type=_minutes, help="train so many minutes, whatever the recipe says")
    add("--batch", type=_count, help="samples a step, on a machine with less memory or time than the recipe's")
    add("--precision", choices=("fp32", "bf16"), help="bf16 is slow where the processor does not compute in it")
    add("--seed", type=int, help="random seed, instead of the recipe's")
    add(
        "--leave-out",
        action="append",
        default=[],
        metavar="SOURCE",
        help="train without this one of --sources, and judge on it; repeatable, a run each",
    )
    add(
        "--near-copies",
        action="store_true",
        help="train nothing; name pictures that are nearly those of --validation, or these moved, cropped or mirrored",
    )
    add("--device", default="auto", help="auto, cpu or cuda (default: auto)")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1; give the count")
    return int(text)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not 0 < minutes < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0; give the minutes to train")
    return minutes


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments that name pictures, with masks or without a polyp."""
    add = parser.add_argument
    add("--sources", type=Path, help="TOML table of named sources: images, masks, stems and weight of each")
    add("--data", type=Path, help="folder that the paths in --sources begin at; left out, that of the table")
    add("--images", type=Path, action="append", default=[], help="folder of pictures; repeatable")
    add("--masks", type=Path, action="append", default=[], help="its folder of masks, in the same order")
    add("--clean", type=Path, action="append", default=[], help="folder of frames without a polyp; repeatable")
    add("--exclude", type=Path, help="list of names to leave out")
    add("--only", type=Path, help="list of names to keep")
