"""How far each engine and precision moves the masks from those of PyTorch in float32, and their Dice from the truth."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from model import engines, transforms
from model.checkpoint import Checkpoint
from model.predictor import DeviceError, Predictor
from model.training.pairs import PairFile, read_image, read_mask
from model.transforms import Floats, Pixels

REFERENCE = ("torch", "fp32")
VARIANTS = (REFERENCE, ("torch", "bf16"), ("torch", "fp16"), *(("openvino", each) for each in ("fp32", "bf16", "int8")))
BATCH = 8
GREEN, RED = (0, 255, 0), (255, 0, 0)


@dataclass(frozen=True)
class Case:
    """A picture, its true mask (H, W) of 0 and 1, and the mask of float32 PyTorch."""

    name: str
    picture: Image.Image
    truth: Pixels
    expected: Pixels


@dataclass(frozen=True, slots=True)
class Fidelity:
    """One line of the table; Dice coefficients from 0 to 1."""

    engine: str
    precision: str
    mean: float  # against the reference's masks
    worst: float
    worst_name: str
    truth: float  # against the true masks
    truth_change: float  # from the reference's
    batch_mean: float  # batch 1 against batch 8
    batch_worst: float


def compare(
    checkpoint: Checkpoint,
    files: Sequence[PairFile],
    precisions: Collection[str],
    *,
    device: str,
    cache_dir: Path | None,
    out: Path | None,
) -> Iterator[Fidelity]:
    """Yield a line for each engine and wanted precision that is to be had here, the reference first."""
    pictures = [read_image(file.image) for file in files]
    frames = np.stack([transforms.to_input(picture) for picture in pictures])
    cases: list[Case] = []
    reference_truth = 0.0
    for engine, precision in VARIANTS:
        if (engine, precision) != REFERENCE and precision not in precisions:
            continue
        try:
            predictor = engines.create(
                checkpoint, device=device, engine=engine, precision=precision, cache_dir=cache_dir
            )
        except DeviceError:
            continue
        alone, together = _masks(predictor, frames, pictures, 1), _masks(predictor, frames, pictures, BATCH)
        if not cases:
            truths = (read_mask(file.mask) for file in files)
            cases = [Case(f.name, p, t, m) for f, p, t, m in zip(files, pictures, truths, alone, strict=True)]
        to_reference = [dice(mask, case.expected) for mask, case in zip(alone, cases, strict=True)]
        truth = float(np.mean([dice(mask, case.truth) for mask, case in zip(alone, cases, strict=True)]))
        reference_truth = reference_truth or truth
        batches = [dice(one, other) for one, other in zip(alone, together, strict=True)]
        worst = int(np.argmin(to_reference))
        if out is not None:
            draw(out / f"worst-{engine}-{precision}.png", cases[worst], alone[worst])
        yield Fidelity(
            engine,
            precision,
            float(np.mean(to_reference)),
            to_reference[worst],
            cases[worst].name,
            truth,
            truth - reference_truth,
            float(np.mean(batches)),
            min(batches),
        )


def dice(mask: Pixels, other: Pixels) -> float:
    """Return the Dice coefficient of two masks; two empty ones agree."""
    total = np.count_nonzero(mask) + np.count_nonzero(other)
    return 2 * np.count_nonzero((mask > 0) & (other > 0)) / total if total else 1.0


def draw(path: Path, case: Case, mask: Pixels) -> None:
    """Draw the outlines of the reference's mask (green) and of another one (red) on a picture."""
    pixels = np.array(case.picture)
    for each, colour in ((case.expected, GREEN), (mask, RED)):
        outlines, _ = cv2.findContours(each, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(pixels, outlines, -1, colour, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _masks(predictor: Predictor, frames: Pixels, pictures: Sequence[Image.Image], batch: int) -> list[Pixels]:
    """Return masks of 0 and 255 in the geometry of each picture, at threshold 0.5."""
    logits: Floats = np.concatenate(
        [predictor.predict(frames[start : start + batch]) for start in range(0, len(frames), batch)]
    )
    return [
        transforms.to_mask(transforms.upsample(each, picture.width, picture.height), 0.5)
        for each, picture in zip(logits, pictures, strict=True)
    ]
