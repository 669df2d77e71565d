"""``pranet weights``: inspects a weights file, converts its storage, and compares or averages two files."""

import argparse
from pathlib import Path

import torch
from tqdm import tqdm

from model.errors import UserError
from model.evaluation import comparison
from model.pictures import masks
from model.training.data.pairs import read_names
from model.weights import checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``inspect``, ``convert``, ``compare`` and ``blend``."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    inspecting = actions.add_parser("inspect", help="check a file and print its metadata")
    inspecting.add_argument("file", type=Path)
    inspecting.set_defaults(act=_inspect)

    converting = actions.add_parser("convert", help="write a file as safetensors in another storage")
    converting.add_argument("file", type=Path)
    converting.add_argument("out", type=Path)
    converting.add_argument("--storage", choices=("int8", "fp16", "fp32"), default="int8", help="default: int8")
    converting.add_argument("--name", help="name of the weights in answers")
    converting.set_defaults(act=_convert)

    comparing = actions.add_parser("compare", help="compare the masks of two files on annotated pictures")
    comparing.add_argument("one", type=Path)
    comparing.add_argument("other", type=Path)
    comparing.add_argument("--images", nargs="+", type=Path, required=True, metavar="DIR", help="folders of pictures")
    comparing.add_argument(
        "--masks", nargs="+", type=Path, required=True, metavar="DIR", help="folders of masks with the same names"
    )
    comparing.add_argument("--only", type=Path, metavar="FILE", help="list of names to use, one per line")
    comparing.set_defaults(act=_compare)

    blending = actions.add_parser("blend", help="average weights before and after fine-tuning")
    blending.add_argument("one", type=Path)
    blending.add_argument("other", type=Path)
    blending.add_argument("out", type=Path)
    blending.add_argument(
        "--share", type=float, default=0.5, help="share of OTHER in the result, 0 to 1 (default: 0.5)"
    )
    blending.set_defaults(act=_blend)


def run(arguments: argparse.Namespace) -> int:
    """Carry out the chosen action.

    Raises:
        CheckpointError: a file cannot be used.
        UserError: there are no pictures to compare on, or the share is not from 0 to 1.

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


def _compare(arguments: argparse.Namespace) -> int:
    names = read_names(arguments.only) if arguments.only else set()
    files = comparison.pairs(arguments.images, arguments.masks, frozenset(Path(name).stem for name in names))
    one, other = (checkpoint.load(file) for file in (arguments.one, arguments.other))
    found = comparison.compare(one, other, tqdm(files, unit="image", disable=None))
    print(masks.told(masks.levels_of(annotation for _, annotation in files)))
    print(f"pictures            {found.pictures}")
    print(f"Dice of the masks   {found.agreement:.4f}")
    print(f"Dice with the truth {found.one:.4f} and {found.other:.4f} ({found.other - found.one:+.4f})")
    return 0


def _blend(arguments: argparse.Namespace) -> int:
    """Interpolate between weights and a fine-tuned copy (Wortsman et al., CVPR 2022: robust fine-tuning)."""
    share = arguments.share
    if not 0 <= share <= 1:
        raise UserError(f"--share is {share}; give a number from 0 to 1")
    one, other = (checkpoint.load(file) for file in (arguments.one, arguments.other))
    state = {
        name: torch.lerp(value, other.state[name], share) if value.is_floating_point() else value
        for name, value in one.state.items()
    }
    origin = f"{1 - share:g} of {one.model_id}, {share:g} of {other.model_id}"
    checkpoint.save(arguments.out, state, "fp32", {"name": "blend", "blend": origin})
    return _inspect(argparse.Namespace(file=arguments.out))
