"""``pranet evaluate``: judge weights, or anybody's maps, on pictures with known masks."""

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from PIL import Image

from model.engines import factory
from model.engines.predictor import Predictor
from model.errors import UserError
from model.evaluation import clean, maps, protocols, report
from model.evaluation.bootstrap import Estimate
from model.evaluation.calibration import Reliability
from model.evaluation.maps import FolderMaps, Maps, NetworkMaps
from model.evaluation.protocols import Judgement
from model.training.command import add_data_arguments, selected
from model.training.pairs import PairFile, pictures_in, read_image, read_mask
from model.weights import checkpoint
from model.weights.checkpoint import Checkpoint

Groups = dict[str, dict[str, Estimate]]  # data set -> metric -> mean over its pictures


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
    """Carry out ``pranet evaluate``; returns the exit status.

    Raises:
        UserError: pictures, lists or weights cannot be used, or arguments do not fit together.

    """
    if args.calibrate and not (args.crops and args.weights):
        raise UserError("--calibrate fits the score of --weights to polyp-free crops; give --weights and --crops too")
    files = selected(args)
    baseline = _baseline(args.baseline, files) if args.baseline else {}
    content: dict[str, Any] = {"protocol": args.protocol}
    if args.weights:
        weights = checkpoint.load(args.weights)
        predictor = factory.create(weights, device=args.device, precision=args.precision)
        network = NetworkMaps(predictor, files)
        answers: Maps = network
        content |= _network(weights, predictor, files) | _clean_frames(args, files, weights, predictor, network)
    else:
        answers = FolderMaps(args.predictions)
    judgements, reliability = _judge(files, answers, args.protocol)
    content |= {"metrics": _groups(judgements), "calibration_error": reliability.error}
    if args.baseline:
        content["gain"] = _gain(judgements, baseline)
    print(report.text(content))
    if args.out:
        _write(args.out, files, answers, judgements, reliability, content)
    return 0


def _network(weights: Checkpoint, predictor: Predictor, files: Sequence[PairFile]) -> dict[str, Any]:
    return {
        "weights": weights.sha256,
        "device": predictor.model.device,
        "precision": predictor.model.precision,
        "fps": maps.frames_per_second(predictor, read_image(files[0].image)),
    }


def _judge(
    files: Sequence[PairFile], answers: Maps, protocol: protocols.Protocol
) -> tuple[list[Judgement], Reliability]:
    judgements, reliability = [], Reliability()
    for file in files:
        truth = read_mask(file.mask) > 0
        probability = answers.probability(file, truth.shape[1], truth.shape[0])
        judgements.append(protocols.judge(file.name, probability, truth, protocol))
        reliability.add(probability, truth)
    return judgements, reliability


def _groups(judgements: Sequence[Judgement]) -> Groups:
    """Summarise each data set by itself and, if there are several, all together."""
    groups: dict[str, list[Judgement]] = defaultdict(list)
    for judgement in judgements:
        groups[judgement.name.split("/")[0]].append(judgement)
    if len(groups) > 1:
        groups["all"] = list(judgements)
    return {f"{name} (n={len(members)})": protocols.summarise(members) for name, members in groups.items()}


def _baseline(path: Path, files: Sequence[PairFile]) -> dict[str, dict[str, float]]:
    baseline = report.read_csv(path)
    if not baseline.keys() & {file.name for file in files}:
        raise UserError(f"{path} has none of these pictures; they are named as {files[0].name}")
    return baseline


def _gain(judgements: Sequence[Judgement], baseline: Mapping[str, Mapping[str, float]]) -> Groups:
    """Paired bootstrap of this evaluation less an earlier one, on the pictures and metrics that both have."""
    gains = [
        Judgement(j.name, {key: value - known[key] for key, value in j.metrics.items() if key in known}, j.found)
        for j in judgements
        if (known := baseline.get(j.name))
    ]
    return _groups(gains)


def _clean_frames(
    args: argparse.Namespace,
    files: Sequence[PairFile],
    weights: Checkpoint,
    predictor: Predictor,
    network: NetworkMaps,
) -> dict[str, Any]:
    """Look for false positives where there is no polyp, and judge or fit the presence score."""
    found: dict[str, Any] = {}
    if args.clean:
        pictures = (read_image(path) for path in pictures_in(args.clean))
        found["clean"] = clean.false_positives(list(maps.logits_of(predictor, pictures)))
    if args.crops:
        crops = list(clean.polyp_free_crops(files))
        frames = list(maps.logits_of(predictor, (picture for _, picture in crops)))
        found["crops"] = clean.false_positives(frames)
        test = clean.presence_test(network.logits, [name for name, _ in crops], frames)
        found["presence"] = test.report(None if args.calibrate else weights.presence)
        if args.calibrate:
            checkpoint.save(args.calibrate, weights.state, "fp32", {**weights.metadata, **test.fit().metadata()})
    return found


def _write(
    out: Path,
    files: Sequence[PairFile],
    answers: Maps,
    judgements: Sequence[Judgement],
    reliability: Reliability,
    content: Mapping[str, Any],
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    report.write_json(out / "report.json", content)
    report.write_csv(out / "pictures.csv", judgements)
    report.reliability_diagram(out / "reliability.png", {"pixels": reliability})
    tiles = []
    for index in report.cases(judgements):
        image, truth = np.asarray(read_image(files[index].image)), read_mask(files[index].mask) > 0
        probability = answers.probability(files[index], truth.shape[1], truth.shape[0])
        tiles.append(report.tile(image, probability, truth, judgements[index].metrics["dice"]))
    Image.fromarray(report.contact_sheet(tiles)).save(out / "cases.png")
