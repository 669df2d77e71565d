"""``pranet weights``: inspects a weights file, converts its storage, and compares or averages two files."""

import argparse

import torch
from tqdm import tqdm

from model import targets
from model.errors import UserError
from model.evaluation import comparison
from model.pictures import masks
from model.targets import Targets
from model.weights import checkpoint
from service.commands.flags.weights import OUT


def run(arguments: argparse.Namespace) -> int:
    """Carry out the chosen action.

    Raises:
        CheckpointError: a file cannot be used.
        TargetError: the output is an input, exists already, or cannot be written.
        UserError: there are no pictures to compare on, or the share is not from 0 to 1.

    """
    return ACTIONS[arguments.act](arguments)


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
    _target(arguments)
    loaded = checkpoint.load(arguments.file)
    metadata = dict(loaded.metadata)
    if arguments.name:
        metadata["name"] = arguments.name
    with targets.writing(OUT, arguments.out):
        checkpoint.save(arguments.out, loaded.state, arguments.storage, metadata)
    return _inspect(argparse.Namespace(file=arguments.out))


def _target(arguments: argparse.Namespace) -> None:
    checkpoint.check_target(Targets.of(arguments, "out"), OUT, arguments.out)


def _compare(arguments: argparse.Namespace) -> int:
    pairs = comparison.pairs(arguments.images, arguments.masks, arguments.only)
    one, other = (checkpoint.load(file) for file in (arguments.one, arguments.other))
    found = comparison.compare(one, other, tqdm(pairs, unit="image", disable=None))
    print(masks.told(masks.levels_of(pair.mask for pair in pairs if pair.mask is not None)))
    print(f"pictures            {found.pictures}")
    print(f"Dice of the masks   {found.agreement:.4f}")
    print(f"Dice with the annotations {found.one:.4f} and {found.other:.4f} ({found.other - found.one:+.4f})")
    return 0


def _blend(arguments: argparse.Namespace) -> int:
    """Interpolate between weights and a fine-tuned copy (Wortsman et al., CVPR 2022: robust fine-tuning)."""
    share = arguments.share
    if not 0 <= share <= 1:
        raise UserError(f"--share is {share}; give a number from 0 to 1")
    _target(arguments)
    one, other = (checkpoint.load(file) for file in (arguments.one, arguments.other))
    state = {
        name: torch.lerp(value, other.state[name], share) if value.is_floating_point() else value
        for name, value in one.state.items()
    }
    origin = f"{1 - share:g} of {one.model_id}, {share:g} of {other.model_id}"
    with targets.writing(OUT, arguments.out):
        checkpoint.save(arguments.out, state, "fp32", {"name": "blend", "blend": origin})
    return _inspect(argparse.Namespace(file=arguments.out))


ACTIONS = {"inspect": _inspect, "convert": _convert, "compare": _compare, "blend": _blend}
