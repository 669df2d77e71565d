"""Compares the masks of each engine and precision with those of float32 PyTorch and with the annotations, by Dice."""

import functools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from model import transforms
from model.dice import dice
from model.engines import factory
from model.engines.predictor import DeviceError, Predictor
from model.files import replacing
from model.pictures.reading import read_image
from model.training.data.pairs import PairFile, truth_of
from model.transforms import SIZE, Floats, Pixels
from model.weights.checkpoint import Checkpoint
from service.frames.frame import Frame, prepare

REFERENCE = ("torch", "fp32")
VARIANTS = (
    *(("torch", each) for each in ("fp32", "bf16", "fp16")),
    *(("openvino", each) for each in ("fp32", "bf16", "int8")),
)
BATCH = 8
GREEN, RED = (0, 255, 0), (255, 0, 0)


@dataclass(frozen=True)
class Case:
    """A picture with its annotated mask, and the mask of float32 PyTorch."""

    name: str
    picture: Image.Image
    truth: Pixels  # (H, W), 0 or 1
    expected: Pixels  # (H, W), 0 or 255


@dataclass(frozen=True, slots=True)
class Fidelity:
    """One line of the table; Dice coefficients from 0 to 1."""

    engine: str
    precision: str
    mean: float  # agreement with the masks of the reference
    worst: float
    worst_name: str  # picture with the worst agreement
    truth: float  # mean agreement with the annotations
    truth_change: float  # compared with that of the reference
    batch_mean: float  # agreement between masks from batches of 1 and of 8
    batch_worst: float


def compare(
    checkpoint: Checkpoint,
    files: Sequence[PairFile],
    precisions: Collection[str],
    *,
    max_pixels: int,
    device: str,
    cache_dir: Path | None,
    out: Path | None,
    input_size: int = SIZE,
) -> Iterator[Fidelity]:
    """Yield a line for each available engine and requested precision.

    The first line is the reference, float32 PyTorch on the CPU. The second is the reference on pictures as the service
    decodes them, which reads large JPEGs at reduced size. Both get inputs of 352 x 352 pixels, and the other
    lines inputs of ``input_size``.
    """
    place = factory.resolve_device(device)
    create = functools.partial(factory.create, checkpoint, cache_dir=cache_dir)
    pictures = [read_image(file.image) for file in files]
    frames = np.stack([transforms.to_input(picture) for picture in pictures])
    reference = create(device="cpu", engine=REFERENCE[0], precision=REFERENCE[1])
    alone, together = _masks(reference, frames, pictures, 1), _masks(reference, frames, pictures, BATCH)
    cases = [
        Case(file.name, picture, truth_of(file, *picture.size), mask)
        for file, picture, mask in zip(files, pictures, alone, strict=True)
    ]
    yield _judged(*REFERENCE, cases, alone, together, out)
    served = np.stack([_as_served(file, max_pixels) for file in files])
    alone, together = _masks(reference, served, pictures, 1), _masks(reference, served, pictures, BATCH)
    yield _judged(REFERENCE[0], f"{REFERENCE[1]}, reduced JPEGs", cases, alone, together, out)
    if input_size != SIZE:
        frames = np.stack([transforms.to_input(picture, input_size) for picture in pictures])
    for engine, precision in VARIANTS:
        if precision not in precisions or (place, engine, precision, input_size) == ("cpu", *REFERENCE, SIZE):
            continue
        try:
            predictor = create(device=place, engine=engine, precision=precision, input_size=input_size)
        except DeviceError:
            continue
        alone, together = _masks(predictor, frames, pictures, 1), _masks(predictor, frames, pictures, BATCH)
        yield _judged(engine if place == "cpu" else f"{engine} on GPU", precision, cases, alone, together, out)


def _judged(
    engine: str,
    precision: str,
    cases: Sequence[Case],
    alone: Sequence[Pixels],
    together: Sequence[Pixels],
    out: Path | None,
) -> Fidelity:
    """Compare masks made one by one (``alone``) and in batches (``together``); draw the worst one into ``out``."""
    agreement = [dice(mask, case.expected) for mask, case in zip(alone, cases, strict=True)]
    truth = float(np.mean([dice(mask, case.truth) for mask, case in zip(alone, cases, strict=True)]))
    reference_truth = float(np.mean([dice(case.expected, case.truth) for case in cases]))
    batches = [dice(one, other) for one, other in zip(alone, together, strict=True)]
    worst = int(np.argmin(agreement))
    if out is not None:
        draw(out / f"worst-{engine}-{precision}.png".replace(", ", "-").replace(" ", "-"), cases[worst], alone[worst])
    return Fidelity(
        engine,
        precision,
        float(np.mean(agreement)),
        agreement[worst],
        cases[worst].name,
        truth,
        truth - reference_truth,
        float(np.mean(batches)),
        min(batches),
    )


def _as_served(file: PairFile, max_pixels: int) -> Pixels:
    """Return the network's input, uint8 (3, 352, 352), as the service makes it from the file's bytes."""
    frame = Frame(source=file.image.read_bytes())
    prepare(frame, max_pixels)
    assert frame.item is not None
    return frame.item


def draw(path: Path, case: Case, mask: Pixels) -> None:
    """Write a picture with the outlines of the reference's mask (green) and of ``mask`` (red)."""
    pixels = np.array(case.picture)
    for each, colour in ((case.expected, GREEN), (mask, RED)):
        outlines, _ = cv2.findContours(each, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(pixels, outlines, -1, colour, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        Image.fromarray(pixels).save(draft)


def _masks(predictor: Predictor, frames: Pixels, pictures: Sequence[Image.Image], batch: int) -> list[Pixels]:
    """Return masks of 0 and 255 in the size of each picture, at threshold 0.5."""
    logits: Floats = np.concatenate(
        [predictor.predict(frames[start : start + batch]) for start in range(0, len(frames), batch)]
    )
    return [
        transforms.to_mask(transforms.upsample(each, picture.width, picture.height), 0.5)
        for each, picture in zip(logits, pictures, strict=True)
    ]
