"""Flags of ``pranet weights``."""

import argparse
from pathlib import Path

from model import targets

OUT = "OUT"
EXAMPLES = """\
examples:
  pranet weights inspect weights/pranet.safetensors
  pranet weights convert published.pth pranet.safetensors --storage fp16
  pranet weights compare old.safetensors new.safetensors --images pictures --masks masks
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``inspect``, ``convert``, ``compare`` and ``blend``."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    inspecting = actions.add_parser("inspect", help="check a file and print its metadata")
    inspecting.add_argument("file", type=Path)
    inspecting.set_defaults(act="inspect")

    converting = actions.add_parser("convert", help="write a file as safetensors in another storage")
    converting.add_argument("file", type=Path)
    converting.add_argument("out", type=Path, metavar=OUT)
    converting.add_argument("--storage", choices=("int8", "fp16", "fp32"), default="int8", help="default: int8")
    converting.add_argument("--name", help="name of the weights in answers")
    targets.add_overwrite(converting)
    converting.set_defaults(act="convert")

    comparing = actions.add_parser("compare", help="compare the masks of two files on annotated pictures")
    comparing.add_argument("one", type=Path)
    comparing.add_argument("other", type=Path)
    comparing.add_argument("--images", nargs="+", type=Path, required=True, metavar="DIR", help="folders of pictures")
    comparing.add_argument(
        "--masks", nargs="+", type=Path, required=True, metavar="DIR", help="their folders of masks, in the same order"
    )
    comparing.add_argument("--only", type=Path, metavar="FILE", help="list of names to use, one per line")
    comparing.set_defaults(act="compare")

    blending = actions.add_parser("blend", help="average weights before and after fine-tuning")
    blending.add_argument("one", type=Path)
    blending.add_argument("other", type=Path)
    blending.add_argument("out", type=Path, metavar=OUT)
    blending.add_argument(
        "--share", type=float, default=0.5, help="share of OTHER in the result, 0 to 1 (default: 0.5)"
    )
    targets.add_overwrite(blending)
    blending.set_defaults(act="blend")
