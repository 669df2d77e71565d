"""``pranet train RECIPE``: read the pairs, run the recipe, leave weights and a log in a folder."""

import argparse
import contextlib
import dataclasses
import hashlib
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import nn

from model import files, targets
from model.cores import usable_cores
from model.engines.predictor import DeviceError
from model.network.pranet import PraNet
from model.pictures import masks
from model.targets import Targets
from model.training import backbone, journal, loop, recipe, state
from model.training.data import near_copies, sources
from model.training.data.batches import Batches, Pool
from model.training.data.pairs import DatasetError, read_pair
from model.training.data.sources import Source
from model.training.loop import Network
from model.training.objective import Supervision
from model.training.recipe import RecipeError
from model.training.teacher import network as teacher
from model.training.teacher.distillation import Distillation
from model.training.teacher.supervision import TeacherSupervision
from model.training.validation import judge, mean_dice, summarise
from model.weights import checkpoint, weights_file

DEVICES = ("cpu", "cuda", "mps")
LOG, CURVES = "log.jsonl", "curves.png"
FILES = (state.FILE, state.DESCRIPTION, loop.LAST, loop.BEST, LOG, CURVES)  # of a run


def run(args: argparse.Namespace) -> int:
    """Carry out ``pranet train``; returns the exit status.

    Raises:
        TargetError: a run is in --out already, or an input, or the folder cannot be written.
        UserError: recipe, pictures, lists, weights or device cannot be used, or there is nothing to resume.

    """
    if args.near_copies:
        return near_copies.report(args)
    settings = _overridden(recipe.load(args.recipe), args)
    if (settings.freeze or settings.frozen_statistics) and not (args.init or args.backbone or args.resume):
        raise RecipeError(
            f"recipe {settings.name} freezes a part of the network; "
            "give the weights to start from: --init FILE or --backbone FILE"
        )
    _check_teachers(settings, args)
    device = _device(args.device)
    chosen, held_out = sources.split(args)
    runs = [args.out / f"without-{name}" for name in args.leave_out] or [args.out]
    _check(args, chosen, runs)
    if args.resume and not any(state.kept(run) for run in runs):
        state.require(runs[0])
    with targets.writing("--out", args.out):
        if args.leave_out:
            return _leave_out(args, settings, chosen, held_out, device)
        _train(args, settings, chosen, held_out, device, args.out)
    return 0


def _check(args: argparse.Namespace, chosen: Sequence[Source], runs: Sequence[Path]) -> None:
    """Refuse to write over an input, or over another run."""
    pictures = [path for file in sources.files_of(chosen) for path in (file.image, file.mask) if path]
    own = [Path(args.recipe)] if args.recipe.endswith(recipe.SUFFIX) else []
    targets = Targets.of(args, "out", also=[*pictures, *own])
    targets.folder("--out", args.out, ["left-out.json"] if args.leave_out else [])
    for run in runs:
        targets.folder("--out", run, FILES)


def _train(
    args: argparse.Namespace,
    settings: recipe.Recipe,
    chosen: Sequence[Source],
    held_out: Sequence[Source],
    device: torch.device,
    out: Path,
) -> None:
    """Train on the chosen sources into a folder, or go on with ``--resume`` where a run was begun there."""
    print(sources.told(chosen), flush=True)
    levels = masks.levels_of(file.mask for source in chosen for file in source.files if file.mask is not None)
    if levels:
        print(masks.told(levels), flush=True)
    description = {
        "recipe": dataclasses.asdict(settings),
        "pairs": sum(len(source.files) for source in chosen),
        "sources": [_described(source) for source in chosen],
        "masks": levels,
        "torch": str(torch.__version__),
    }
    if args.teacher:
        description["teachers"] = [hashlib.sha256(weights_file.read(path)).hexdigest() for path in args.teacher]
    begun = state.check_same(out, description) if args.resume and state.kept(out) else None
    validate = _validation(held_out, device, settings.precision)
    pools = [_read(source, settings) for source in chosen]
    torch.manual_seed(settings.seed)
    network, objective = _network(args, settings), _objective(args, settings, device)
    trainer = loop.Trainer(settings, network, Batches(pools, settings), device, out, objective)
    if begun is not None:
        trainer.restore(begun)
    else:
        out.mkdir(parents=True, exist_ok=True)
        trainer.progress.run = uuid.uuid4().hex
    files.write_json(out / state.DESCRIPTION, description | {"run": trainer.progress.run})
    log = journal.Journal(out / LOG, trainer.progress.step)
    trainer.run(log, validate, args.validate_every, args.save_every)
    journal.plot([log.path], out / CURVES)


def _described(source: Source) -> dict[str, Any]:
    """Describe a source for a run that is resumed: its order decides which picture a sample shows."""
    names = "\n".join(file.name + " without a mask" * (file.mask is None) for file in source.files)
    digest = hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()
    return {
        "name": source.name,
        "pictures": len(source.files),
        "weight": source.weight,
        "names_sha256": digest,
    }


def _leave_out(
    args: argparse.Namespace,
    settings: recipe.Recipe,
    chosen: Sequence[Source],
    held_out: Sequence[Source],
    device: torch.device,
) -> int:
    """Train once without each of the named sources, and judge on it what came out beside what went in."""
    if args.init is None:
        raise DatasetError("--leave-out compares with the weights that each run starts from; give --init FILE")
    if unknown := set(args.leave_out) - {source.name for source in chosen}:
        names = ", ".join(source.name for source in chosen)
        raise DatasetError(f"--leave-out {', '.join(sorted(unknown))} is none of the sources; choose from {names}")
    if len(chosen) < 2:
        raise DatasetError(f"--leave-out {chosen[0].name} leaves nothing to train on; add another source")
    if {source.name for source in held_out} & set(args.leave_out) and len(held_out) == 1:
        raise DatasetError(f"--validation holds pictures of {held_out[0].name} alone; add some of the other sources")
    lines = []
    for name in args.leave_out:
        out = args.out / f"without-{name}"
        others, to_validate = ([source for source in each if source.name != name] for each in (chosen, held_out))
        _train(args, settings, others, to_validate, device, out)
        left_out = next(source.files for source in chosen if source.name == name)
        for label, weights in (("before", args.init), ("after", out / loop.LAST)):
            network = _loaded(weights, settings).to(device)
            summary = summarise(judge(network, left_out, device, settings.precision))
            lines.append({"left_out": name, "weights": label, **summary._asdict()})
            print(f"{name}, {label}: {summary}", flush=True)
    files.write_json(args.out / "left-out.json", lines)
    return 0


def _read(source: Source, settings: recipe.Recipe) -> Pool:
    with ThreadPoolExecutor(usable_cores()) as workers:
        pairs = list(workers.map(lambda file: read_pair(file, settings.cache_side), source.files))
    return Pool(pairs, source.weight)


def _overridden(settings: recipe.Recipe, args: argparse.Namespace) -> recipe.Recipe:
    wanted = {name: getattr(args, name) for name in ("steps", "minutes", "batch", "precision", "seed")}
    given = {name: value for name, value in wanted.items() if value is not None}
    if "steps" in given or "minutes" in given:
        given = {"steps": None, "epochs": None, "minutes": None} | given
    return dataclasses.replace(settings, **given)


def _check_teachers(settings: recipe.Recipe, args: argparse.Namespace) -> None:
    if settings.taught and not args.teacher:
        raise RecipeError(f"recipe {settings.name} learns from a teacher; train one first, and give --teacher FILE")
    if args.teacher and not settings.taught:
        raise RecipeError(f"recipe {settings.name} learns from no teacher; leave out --teacher")


def _objective(args: argparse.Namespace, settings: recipe.Recipe, device: torch.device) -> nn.Module:
    if settings.network == "teacher":
        return TeacherSupervision(settings)
    if not settings.taught:
        return Supervision(settings)
    return Distillation(settings, [teacher.load(path) for path in args.teacher]).to_device(device)


def _loaded(weights: Path, settings: recipe.Recipe) -> Network:
    return teacher.load(weights) if settings.network == "teacher" else checkpoint.load(weights).network()


def _network(args: argparse.Namespace, settings: recipe.Recipe) -> Network:
    if args.init is not None:
        return _loaded(args.init, settings)
    if settings.network == "teacher":
        return teacher.Teacher() if args.backbone is None else teacher.of_backbone(args.backbone)
    network = PraNet()
    if args.backbone is not None:
        backbone.load(network.resnet, args.backbone)
    return network


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    with contextlib.suppress(RuntimeError, AssertionError):  # unknown; not there, or not in this build of PyTorch
        device = torch.empty(0, device=name).device
        if device.type in DEVICES:
            return device
    raise DeviceError(f"device {name!r} is not available on this machine; {_advice()}")


def _advice() -> str:
    return "use --device cpu or cuda" if torch.cuda.is_available() else "use --device cpu"


def _validation(held_out: Sequence[Source], device: torch.device, precision: str) -> loop.Validate | None:
    pairs = sources.files_of(held_out)
    return (lambda network: mean_dice(network, pairs, device, precision)) if pairs else None
