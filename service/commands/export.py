"""``pranet export``: writes the weights for other servers, and the calibration that int8 needs."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from model import targets, transforms
from model.errors import UserError, how_to_install
from model.files import listed
from model.pictures.suffixes import PICTURES
from model.targets import Targets
from model.training.data.pairs import names_of, read_names_of
from model.transforms import Pixels
from model.weights import checkpoint
from model.weights.checkpoint import Checkpoint
from service.configuration import from_command_line
from service.errors import ServiceError
from service.frames import codec
from service.settings import Settings

CALIBRATION_PICTURES = 64
OUT = "--out"

Folders = Sequence[tuple[Path, list[Path]]]  # each with its pictures


def run(arguments: argparse.Namespace) -> int:
    """Write the chosen export, and print its path.

    Raises:
        CheckpointError: the weights cannot be used.
        TargetError: the output is an input, exists already, or cannot be written.
        UserError: a library or the pictures are missing, or the export computes other logits than PyTorch.

    """
    settings = from_command_line(arguments)
    folders = _listed(arguments.calibrate or [])
    out = _checked_target(arguments, settings, folders)
    weights = checkpoint.load(settings.weights_path)
    if arguments.int8:
        found = _calibrated(weights, arguments, settings, folders)
        with targets.writing(OUT, out):
            _int8().save(out, found, weights)
        print(f"{out}: calibration of {weights.model_id}; put it beside the weights and use --precision int8")
        return 0
    from model import export

    write = export.write_onnx if arguments.onnx else export.write_triton
    with targets.writing(OUT, out):
        difference = write(weights, out)
    print(f"{out}: {weights.model_id}; logits within {difference:.2g} of PyTorch's")
    return 0


def _listed(folders: Sequence[Path]) -> Folders:
    return [(folder, listed(folder, PICTURES, deep=True) if folder.is_dir() else []) for folder in folders]


def _checked_target(arguments: argparse.Namespace, settings: Settings, folders: Folders) -> Path:
    """Return where to write, which is no input and, without ``--overwrite``, not there yet."""
    pictures = [file for _, files in folders for file in files]
    targets = Targets.of(arguments, "out", also=[*pictures, settings.weights_path])
    if arguments.triton:
        repository: Path = arguments.out or Path("model_repository")
        from model.export import triton_files

        targets.folder(OUT, repository, triton_files())
        return repository
    default = Path("pranet.onnx") if arguments.onnx else settings.weights_path.with_suffix(_int8().SUFFIX)
    out: Path = arguments.out or default
    targets.wants(OUT, out)
    return out


def _calibrated(weights: Checkpoint, arguments: argparse.Namespace, settings: Settings, folders: Folders) -> Any:
    int8 = _int8()
    if arguments.calibrate is None:
        raise UserError("--int8 needs --calibrate with a folder of typical pictures")
    every = [file for _, files in folders for file in files]
    exclude = read_names_of(arguments.exclude, every) if arguments.exclude else set()
    frames = list(_frames(folders, exclude, settings.max_image_pixels))
    try:
        from model.engines.openvino import conversion

        return int8.calibrate(conversion.convert(weights), frames)
    except ImportError as error:
        raise UserError(f"{error}; install what int8 needs: {how_to_install('int8')}") from error


def _int8() -> ModuleType:
    try:
        from model.engines.openvino import int8
    except ImportError as error:
        raise UserError(f"{error}; run this on an x86-64 machine, where make serve installs OpenVINO") from error
    return int8


def _frames(folders: Folders, exclude: set[str], max_pixels: int) -> Iterator[Pixels]:
    """Yield network inputs of pictures spread evenly over each folder; name those that cannot be decoded.

    Raises:
        UserError: a folder has no picture, or none that can be decoded.

    """
    for folder, files in folders:
        pictures = [file for file in files if exclude.isdisjoint(names_of(file))]
        if not pictures:
            raise UserError(
                f"{folder} holds no pictures; give --calibrate a folder that has some, besides those of --exclude"
            )
        damaged, count = 0, min(len(pictures), max(1, CALIBRATION_PICTURES // len(folders)))
        for index in np.linspace(0, len(pictures) - 1, count).round().astype(int):
            try:
                yield transforms.to_input(codec.decode(pictures[index].read_bytes(), max_pixels))
            except ServiceError as error:
                damaged += 1
                print(f"pranet: {pictures[index]} is left out: {error}", file=sys.stderr)
        if damaged == count:
            raise UserError(f"none of {count} pictures of {folder} can be decoded; give --calibrate other folders")
        if damaged:
            print(f"pranet: {damaged} of {count} pictures of {folder} were left out", file=sys.stderr)
