"""``pranet evaluate``: judge weights, or anybody's maps, on pictures with known masks and on frames without a polyp."""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model import targets
from model.engines import factory
from model.engines.predictor import Predictor
from model.errors import UserError
from model.evaluation import boxes, clean, maps, operating, output, protocols, report, sets
from model.evaluation.bootstrap import Estimate
from model.evaluation.calibration import Reliability
from model.evaluation.maps import FolderMaps, Maps, NetworkMaps
from model.evaluation.output import Judged
from model.evaluation.protocols import Judgement
from model.pictures import masks
from model.pictures.reading import read_image
from model.targets import Targets
from model.training.data import sources
from model.training.data.pairs import PairFile, read_truth
from model.weights import checkpoint
from model.weights.checkpoint import Checkpoint

Groups = dict[str, dict[str, Estimate]]  # set -> metric -> mean over its pictures


def run(args: argparse.Namespace) -> int:
    """Carry out ``pranet evaluate``; returns the exit status.

    Raises:
        TargetError: an output is an input, exists already, or cannot be written.
        UserError: pictures, lists or weights cannot be used, or arguments do not fit together.

    """
    _check_flags(args)
    by_set = sources.by_set(sources.selected(args))
    pairs = [file for members in by_set.values() for file in members]
    if args.calibrate and not (args.weights and (args.crops or any(map(_polyp_free, pairs)))):
        raise UserError(
            "--calibrate needs --weights and frames without a polyp; give --clean, --sources or --crops too"
        )
    _check(args, pairs)
    baseline = _baseline(args.baseline, pairs, args.protocol) if args.baseline else {}
    content: dict[str, Any] = {
        "protocol": args.protocol,
        "masks": masks.levels_of(pair.mask for pair in pairs if pair.mask is not None),
    }
    subject = _Network.load(args, pairs) if args.weights else None
    answers: Maps = subject.answers if subject else FolderMaps(args.predictions, pairs)
    judged, reliability = _judge(by_set, answers, args.protocol)
    content["sets"] = sets.rows({name: [each.judgement for each in members] for name, members in judged.items()})
    if subject:
        content |= subject.description(pairs) | _presence(args, subject, judged)
        if args.boxes:
            content["boxes"] = boxes.report(subject.predictor, pairs, subject.weights.presence)
    content |= {"metrics": _groups(_judgements(judged)), "calibration_error": reliability.error}
    if args.operating_points:
        content["operating_points"] = operating.points(pairs, answers)
    if args.baseline:
        content["gain"] = _groups(_gains(_judgements(judged), baseline))
    print(report.text(content))
    if args.out:
        with targets.writing("--out", args.out):
            output.write(args.out, judged, answers, reliability, content)
    return 0


def _check_flags(args: argparse.Namespace) -> None:
    """Refuse flags that others make meaningless."""
    if not 0 < args.operate_at < 1:
        raise UserError(f"--operate-at is {args.operate_at}; give a threshold between 0 and 1")
    if args.operate_at != protocols.THRESHOLD and not args.calibrate:
        raise UserError("--operate-at changes the weights that --calibrate writes; give both")
    if args.predictions and (args.boxes or args.crops):
        raise UserError("--boxes and --crops need a network to judge other pictures; give --weights")


def _polyp_free(file: PairFile) -> bool:
    return file.mask is None or not read_truth(file).any()


def _check(args: argparse.Namespace, pairs: Sequence[PairFile]) -> None:
    """Refuse to write over an input, or over what is there."""
    pictures = [path for file in pairs for path in (file.image, file.mask) if path]
    targets = Targets.of(args, "out", "calibrate", also=pictures)
    if args.out:
        targets.folder("--out", args.out, output.FILES)
    if args.calibrate:
        checkpoint.check_target(targets, "--calibrate", args.calibrate)


@dataclass(frozen=True)
class _Network:
    """The weights that are judged, and their answers."""

    path: Path
    weights: Checkpoint
    predictor: Predictor
    answers: NetworkMaps

    @classmethod
    def load(cls, args: argparse.Namespace, files: Sequence[PairFile]) -> "_Network":
        weights = checkpoint.load(args.weights)
        predictor = factory.create(weights, device=args.device, precision=args.precision)
        return cls(args.weights, weights, predictor, NetworkMaps(predictor, files))

    def description(self, files: Sequence[PairFile]) -> dict[str, Any]:
        return {
            "file": self.path.name,
            "weights": self.weights.sha256,
            "device": self.predictor.model.device,
            "precision": self.predictor.model.precision,
            "fps": round(maps.frames_per_second(self.predictor, read_image(files[0].image)), 1),
        }


def _judge(
    by_set: Mapping[str, Sequence[PairFile]], answers: Maps, protocol: protocols.Protocol
) -> tuple[dict[str, list[Judged]], Reliability]:
    judged: dict[str, list[Judged]] = {}
    reliability = Reliability()
    for name, pairs in by_set.items():
        judged[name] = []
        for file in pairs:
            truth = read_truth(file) > 0
            probability = answers.probability(file, truth.shape[1], truth.shape[0])
            judged[name].append(Judged(file, protocols.judge(file.name, probability, truth, protocol)))
            reliability.add(probability, truth)
    return judged, reliability


def _judgements(judged: Mapping[str, Sequence[Judged]]) -> dict[str, list[Judgement]]:
    """Return each set by itself and, if there are several, all together."""
    groups = {name: [each.judgement for each in members] for name, members in judged.items()}
    every = [judgement for members in groups.values() for judgement in members]
    return groups | ({"all": every} if len(groups) > 1 else {})


def _groups(judgements: Mapping[str, Sequence[Judgement]]) -> Groups:
    return {f"{name} (n={len(members)})": protocols.summarise(members) for name, members in judgements.items()}


def _baseline(path: Path, files: Sequence[PairFile], protocol: protocols.Protocol) -> dict[str, dict[str, float]]:
    baseline = report.read_csv(path)
    names = Counter(file.name for file in files)
    if twice := next((name for name, count in names.items() if count > 1), None):
        raise UserError(f"--baseline needs different names, and two pictures are named {twice}; judge them one by one")
    if not baseline.keys() & names.keys():
        raise UserError(f"{path} has none of these pictures; they are named as {files[0].name}")
    columns = next(iter(baseline.values())).keys()
    if "mae" in columns and (other := protocols.that_wrote(columns)) != protocol:
        raise UserError(f"{path} was judged by the protocol {other}, not {protocol}; give --protocol {other}")
    return baseline


def _gains(
    judgements: Mapping[str, Sequence[Judgement]], baseline: Mapping[str, Mapping[str, float]]
) -> dict[str, list[Judgement]]:
    """Subtract an earlier evaluation, on the pictures and metrics that both have: for the paired bootstrap."""
    gains = {
        name: [
            Judgement(j.name, {key: value - known[key] for key, value in j.metrics.items() if key in known}, j.found)
            for j in members
            if (known := baseline.get(j.name))
        ]
        for name, members in judgements.items()
    }
    return {name: members for name, members in gains.items() if members}


def _presence(args: argparse.Namespace, subject: _Network, judged: Mapping[str, Sequence[Judged]]) -> dict[str, Any]:
    """Judge or fit the presence score where there are frames of both kinds; polyp-free crops count if asked for."""
    found: dict[str, Any] = {}
    every = [each for members in judged.values() for each in members]
    frames = [(j.file.name, subject.answers.logits[j.file], j.judgement.polyp) for j in every]
    if args.crops:
        crops = list(clean.polyp_free_crops([each.file for each in every]))
        logits = maps.logits_of(subject.predictor, (picture for _, picture in crops))
        parts = [(name, each) for (name, _), each in zip(crops, logits, strict=True)]
        found["crops"] = clean.false_positives(parts)
        frames += [(*part, False) for part in parts]
    test = clean.PresenceTest.of(frames)
    if test.decidable:
        found["presence"] = test.report(None if args.calibrate else subject.weights.presence)
    if args.calibrate:
        if not test.decidable:
            raise UserError("--calibrate needs frames with and without a polyp, from two pictures or more; add some")
        state, presence = operating.moved(subject.weights.state, test.fit(), args.operate_at)
        with targets.writing("--calibrate", args.calibrate):
            checkpoint.save(args.calibrate, state, "fp32", {**subject.weights.metadata, **presence.metadata()})
    return found
