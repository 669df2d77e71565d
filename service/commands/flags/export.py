"""Flags of ``pranet export``."""

import argparse
from pathlib import Path

from model import targets
from service.commands.flags.settings import add_settings

EXAMPLES = """\
examples:
  pranet export --onnx -o pranet.onnx
  pranet export --triton -o model_repository
  pranet export --int8 --calibrate pictures
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``pranet export``."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--onnx", action="store_true", help="an ONNX file, checked against PyTorch")
    what.add_argument("--triton", action="store_true", help="a model repository for NVIDIA Triton, with ONNX in it")
    what.add_argument("--int8", action="store_true", help="the calibration for --precision int8; needs --calibrate")
    parser.add_argument(
        "--calibrate", type=Path, action="append", metavar="DIR", help="folder of typical pictures; repeatable"
    )
    parser.add_argument(
        "--exclude", type=Path, metavar="FILE", help="list of pictures to leave out, such as those for validation"
    )
    parser.add_argument(
        "-o", "--out", type=Path, metavar="PATH", help="default: pranet.onnx, model_repository, or beside the weights"
    )
    targets.add_overwrite(parser)
    add_settings(parser, ("weights", "max_image_pixels", "log_level"))
