"""``pranet weights``: look into a weights file, and store it in another way."""

import argparse
from pathlib import Path

from model import checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``inspect`` and ``convert``."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    inspecting = actions.add_parser("inspect", help="check a file and say what it holds")
    inspecting.add_argument("file", type=Path)
    inspecting.set_defaults(act=_inspect)

    converting = actions.add_parser("convert", help="write a file as safetensors in another storage")
    converting.add_argument("file", type=Path)
    converting.add_argument("out", type=Path)
    converting.add_argument("--storage", choices=("int8", "fp16", "fp32"), default="int8", help="default: int8")
    converting.add_argument("--name", help="what the weights are called in answers")
    converting.set_defaults(act=_convert)


def run(arguments: argparse.Namespace) -> int:
    """Carry out the chosen action.

    Raises:
        CheckpointError: the file cannot be used.

    """
    code: int = arguments.act(arguments)
    return code


def _inspect(arguments: argparse.Namespace) -> int:
    loaded = checkpoint.load(arguments.file)
    parameters = sum(value.numel() for value in loaded.state.values() if value.is_floating_point())
    print(f"file        {arguments.file} ({arguments.file.stat().st_size:,} bytes)")
    print(f"model id    {loaded.model_id}")
    print(f"sha256      {loaded.sha256}")
    print(f"parameters  {parameters:,} in {len(loaded.state)} tensors")
    for key, value in sorted(loaded.metadata.items()):
        print(f"{key:<11} {value}")
    return 0


def _convert(arguments: argparse.Namespace) -> int:
    loaded = checkpoint.load(arguments.file)
    metadata = dict(loaded.metadata)
    if arguments.name:
        metadata["name"] = arguments.name
    checkpoint.save(arguments.out, loaded.state, arguments.storage, metadata)
    return _inspect(argparse.Namespace(file=arguments.out))
