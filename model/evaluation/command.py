"""``pranet evaluate``: judge weights, or anybody's maps, on pictures with known masks."""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from PIL import Image

from model import checkpoint, engines
from model.checkpoint import Checkpoint
from model.evaluation import bootstrap, clean, maps, protocols, report
from model.evaluation.calibration import Reliability
from model.evaluation.overlap import Array
from model.evaluation.protocols import Judgement
from model.predictor import Predictor
from model.presence import Presence, statistic
from model.training.command import add_data_arguments, selected
from model.training.pairs import PairFile, read_image, read_mask
from model.transforms import Floats


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``pranet evaluate``."""
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--weights", type=Path, help="judge this weights file")
    source.add_argument("--predictions", type=Path, help="judge the maps in this folder, named as the pictures are")
    add_data_arguments(parser)
    add("--protocol", choices=get_args(protocols.Protocol), default="fixed")
    add("--out", type=Path, help="folder for report.json, pictures.csv, cases.png and reliability.png")
    add("--baseline", type=Path, help="pictures.csv of an earlier evaluation, for a paired comparison")
    add("--crops", action="store_true", help="also look for false positives on polyp-free crops of the pictures")
    add("--clean", type=Path, help="also look for false positives on the pictures of this folder")
    add("--calibrate", type=Path, metavar="FILE", help="with --crops: fit the presence score, write weights with it")
    add("--device", default="auto")
    add("--precision", default="fp32")


def run(args: argparse.Namespace) -> int:
    """Carry out ``pranet evaluate``; returns the exit status."""
    files = selected(args)
    weights = checkpoint.load(args.weights) if args.weights else None
    predictor = engines.create(weights, device=args.device, precision=args.precision) if weights else None
    logits = list(maps.logits_of(predictor, (read_image(file.image) for file in files))) if predictor else []
    judgements, reliability = _judge(files, args, logits)
    content: dict[str, Any] = {"protocol": args.protocol, "metrics": _groups(judgements)}
    print(report.table(content["metrics"]))
    content["calibration_error"] = reliability.error
    if args.baseline:
        content["gain"] = _gain(judgements, report.read_csv(args.baseline))
    if weights is not None and predictor is not None:
        content |= {"weights": weights.sha256, "device": predictor.model.device, "precision": predictor.model.precision}
        content["fps"] = maps.frames_per_second(predictor, read_image(files[0].image))
        content |= _clean_frames(args, files, weights, predictor, logits)
    for key in content.keys() - {"metrics", "protocol"}:
        print(f"{key}: {content[key]}")
    if args.out:
        _write(args, files, logits, judgements, reliability, content)
    return 0


def _judge(
    files: Sequence[PairFile], args: argparse.Namespace, logits: Sequence[Floats]
) -> tuple[list[Judgement], Reliability]:
    judgements, reliability = [], Reliability()
    for index, file in enumerate(files):
        truth = read_mask(file.mask) > 0
        probability = _probability(index, file, args, logits, truth.shape)
        judgements.append(protocols.judge(file.name, probability, truth, args.protocol))
        reliability.add(probability, truth)
    return judgements, reliability


def _probability(
    index: int, file: PairFile, args: argparse.Namespace, logits: Sequence[Floats], shape: tuple[int, ...]
) -> Array:
    height, width = shape
    if args.predictions:
        return maps.read_map(maps.find_map(args.predictions, file.image.stem), width, height)
    return maps.probability_of(logits[index], width, height)


def _groups(judgements: Sequence[Judgement]) -> dict[str, dict[str, bootstrap.Estimate]]:
    """Summarise each data set by itself and, if there are several, all together."""
    groups: dict[str, list[Judgement]] = defaultdict(list)
    for judgement in judgements:
        groups[judgement.name.split("/")[0]].append(judgement)
    if len(groups) > 1:
        groups["all"] = list(judgements)
    return {f"{name} (n={len(members)})": protocols.summarise(members) for name, members in groups.items()}


def _gain(judgements: Sequence[Judgement], baseline: dict[str, dict[str, float]]) -> dict[str, bootstrap.Estimate]:
    """Paired bootstrap of this evaluation less an earlier one, on the pictures that both have."""
    both = [judgement for judgement in judgements if judgement.name in baseline]
    return {
        metric: bootstrap.mean(np.array([j.metrics[metric] - baseline[j.name][metric] for j in both]))
        for metric in judgements[0].metrics
    }


def _clean_frames(
    args: argparse.Namespace,
    files: Sequence[PairFile],
    weights: Checkpoint,
    predictor: Predictor,
    logits: Sequence[Floats],
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if args.clean:
        pictures = [read_image(path) for path in sorted(args.clean.iterdir())]
        marked = [_marked(frame) for frame in maps.logits_of(predictor, pictures)]
        found["clean"] = clean.false_positives(marked)
    if args.crops:
        crops = list(clean.polyp_free_crops(files))
        frames = list(maps.logits_of(predictor, (picture for _, picture in crops)))
        found["crops"] = clean.false_positives([_marked(frame) for frame in frames])
        test = clean.PresenceTest(
            [statistic(frame) for frame in (*logits, *frames)],
            [True] * len(files) + [False] * len(frames),
            [file.name for file in files] + [name for name, _ in crops],
        )
        found["presence"] = test.report(Presence.from_metadata(weights.metadata) if not args.calibrate else None)
        if args.calibrate:
            metadata = {**weights.metadata, **test.fit().metadata()}
            checkpoint.save(args.calibrate, weights.state, "fp32", metadata)
    return found


def _marked(logits: Floats) -> float:
    """Fraction of a frame that is marked; of the network's square, which is that of the frame."""
    return float((logits > 0).mean())


def _write(
    args: argparse.Namespace,
    files: Sequence[PairFile],
    logits: Sequence[Floats],
    judgements: Sequence[Judgement],
    reliability: Reliability,
    content: dict[str, Any],
) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    report.write_json(args.out / "report.json", content)
    report.write_csv(args.out / "pictures.csv", judgements)
    report.reliability_diagram(args.out / "reliability.png", {"pixels": reliability})

    def tiles() -> Iterator[Any]:
        for index in report.cases(judgements):
            image, truth = np.asarray(read_image(files[index].image)), read_mask(files[index].mask) > 0
            probability = _probability(index, files[index], args, logits, truth.shape)
            yield report.tile(image, probability, truth, judgements[index].metrics["dice"])

    Image.fromarray(report.contact_sheet(list(tiles()))).save(args.out / "cases.png")
