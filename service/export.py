"""``pranet export``: the weights for other servers, and the calibration that int8 needs."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from model import checkpoint, transforms
from model.checkpoint import Checkpoint
from model.errors import UserError
from model.transforms import Pixels
from service import codec
from service.local import SUFFIXES
from service.settings import Settings, add_flags, from_command_line

CALIBRATION_PICTURES = 100  # more change next to nothing; 20 already come close


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``pranet export``."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--onnx", action="store_true", help="an ONNX file, checked against PyTorch")
    what.add_argument("--triton", action="store_true", help="a model repository for NVIDIA Triton, with ONNX in it")
    what.add_argument("--int8", action="store_true", help="the calibration for --precision int8; needs --calibrate")
    parser.add_argument(
        "--calibrate", type=Path, metavar="DIR", help="folder of typical pictures; a hundred are enough"
    )
    parser.add_argument(
        "-o", "--out", type=Path, metavar="PATH", help="default: pranet.onnx, model_repository, or beside the weights"
    )
    add_flags(parser, ("weights", "max_image_pixels", "log_level"))


def run(arguments: argparse.Namespace) -> int:
    """Write what was asked for.

    Raises:
        CheckpointError: the weights cannot be used.
        UserError: a library or the pictures are missing, or an export is not what PyTorch computes.

    """
    settings = from_command_line(arguments)
    weights = checkpoint.load(settings.weights_path)
    if arguments.int8:
        written = _calibrate(weights, arguments.calibrate, arguments.out, settings)
        print(f"{written}: calibration of {weights.model_id}; lay it beside the weights and use --precision int8")
        return 0
    from model import export

    write, default = (export.write_onnx, "pranet.onnx") if arguments.onnx else (export.write_triton, "model_repository")
    out = arguments.out or Path(default)
    print(f"{out}: {weights.model_id}; logits within {write(weights, out):.2g} of PyTorch's")
    return 0


def _calibrate(weights: Checkpoint, folder: Path | None, out: Path | None, settings: Settings) -> Path:
    try:
        from model import openvino_graph, openvino_int8
    except ImportError as error:
        raise UserError(f"{error}; int8 needs OpenVINO, which runs on x86-64 processors") from error
    if folder is None:
        raise UserError("--int8 needs --calibrate with a folder of typical pictures")
    frames = list(_frames(folder, settings.max_image_pixels))
    if not frames:
        raise UserError(f"no picture found in {folder}")
    try:
        found = openvino_int8.calibrate(openvino_graph.convert(weights), frames)
    except ImportError as error:
        raise UserError(f"{error}; install what int8 needs: pip install 'pranet-service[int8]'") from error
    path = out or openvino_int8.path_for(weights)
    openvino_int8.save(path, found, weights)
    return path


def _frames(folder: Path, max_pixels: int) -> Iterator[Pixels]:
    """Yield network inputs of pictures spread evenly over a folder."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    chosen = np.linspace(0, len(files) - 1, min(len(files), CALIBRATION_PICTURES)).round().astype(int)
    for index in chosen:
        yield transforms.to_input(codec.decode(files[index].read_bytes(), max_pixels))
