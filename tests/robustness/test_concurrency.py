"""Many clients at once, on both protocols: every answer is the caller's own, and none is lost."""

import asyncio
import itertools
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from PIL import Image
from PIL.Image import Transpose

from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc
from tests.support.pictures import SAMPLES, Mask, annotation, dice, encoded, mask_of
from tests.support.processes import clients, pranet, server

CLIENTS = 64
PICTURES = 24  # each is sent by two or three clients
SMALL = ("--input-size", 256, "--log-level", "warning")  # many pictures, few seconds
ALIKE = 0.8  # Dice from which two masks could be taken for each other
FAR_APART = 0.65  # Dice up to which two annotations promise masks that differ
SIZES = ((64, 64), (320, 240), (640, 480), (720, 576), (1280, 720), (1920, 1080))
FORMATS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
TURNS = (None, *Transpose)
SHIFTS = (-0.3, 0.0, 0.3)  # of the side


@dataclass(frozen=True)
class Case:
    """A picture as it is sent, and the mask that ``pranet segment`` makes of it."""

    image: bytes
    expected: Mask


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    """Choose pictures whose expected masks differ pairwise, so that a swapped answer shows."""
    folder, out = tmp_path_factory.mktemp("pictures"), tmp_path_factory.mktemp("masks")
    files = [_write(folder, number, picture) for number, picture in enumerate(_candidates()[: PICTURES + 8])]
    done = pranet("segment", folder, "-o", out, *SMALL)
    assert done.returncode == 0, done.stderr
    masks = [mask_of((out / f"{file.name}.png").read_bytes()) for file in files]
    chosen = _apart([Image.fromarray(mask) for mask in masks], ALIKE)
    assert len(chosen) >= PICTURES, f"only {len(chosen)} of {len(files)} masks differ"
    return [Case(files[number].read_bytes(), masks[number]) for number in chosen[:PICTURES]]


def _candidates() -> list[Image.Image]:
    """Turn and shift the sample frames; keep those whose annotations promise that their masks will differ."""
    moves = list(itertools.product(itertools.product(SHIFTS, SHIFTS), TURNS[:4], SAMPLES))
    annotations = [_moved(Image.fromarray(annotation(sample)), turn, shift) for shift, turn, sample in moves]
    pictures = {sample: Image.open(sample).convert("RGB") for sample in SAMPLES}
    kept = (moves[number] for number in _apart(annotations, FAR_APART))
    return [_moved(pictures[sample], turn, shift) for shift, turn, sample in kept]


def _apart(masks: list[Image.Image], alike: float) -> list[int]:
    """Pick masks one by one that are like none picked before; empty ones are like each other."""
    shapes = [np.asarray(mask.resize((96, 96))) > 0 for mask in masks]
    picked: list[int] = []
    for number, shape in enumerate(shapes):
        if shape.any() and all(dice(shape, shapes[other]) < alike for other in picked):
            picked.append(number)
    return picked


def _moved(picture: Image.Image, turn: Transpose | None, shift: tuple[float, float]) -> Image.Image:
    square = picture.resize((512, 512))
    return _shifted(square if turn is None else square.transpose(turn), *shift)


def _shifted(picture: Image.Image, x: float, y: float) -> Image.Image:
    width, height = picture.size
    return picture.transform(picture.size, Image.Transform.AFFINE, (1, 0, -x * width, 0, 1, -y * height))


def _write(folder: Path, number: int, picture: Image.Image) -> Path:
    kind, suffix = list(FORMATS.items())[number % len(FORMATS)]
    file = folder / f"{number:03}{suffix}"
    file.write_bytes(encoded(picture.resize(SIZES[number // len(FORMATS) % len(SIZES)]), kind))
    return file


@pytest.mark.slow
async def test_64_clients_each_get_the_mask_that_the_command_makes(cases: list[Case]) -> None:
    sent = [cases[number % PICTURES] for number in range(CLIENTS)]
    with server(*SMALL, "--request-timeout-ms", 300_000) as small:  # machines are busy
        async with clients(small) as (rest, channel):
            before = await _batches(rest)
            answers = await _asked([case.image for case in sent], rest, channel)
            after = await _batches(rest)
    same = [float((mask_of(answer) == case.expected).mean()) for answer, case in zip(answers, sent, strict=True)]
    frames, batches = (late - early for early, late in zip(before, after, strict=True))
    print(f"\nleast share of equal pixels {min(same):.4f}, mean batch {frames / batches:.2f}", end="")
    assert min(same) >= 0.99
    assert frames == CLIENTS
    assert frames / batches > 1.5


async def _asked(images: list[bytes], rest: httpx.AsyncClient, channel: grpc.aio.Channel) -> list[bytes]:
    """Send all pictures at once, every second one over gRPC, and return the masks as PNG."""
    stub = pb_grpc.SegmentationServiceStub(channel)

    async def over_rest(image: bytes) -> bytes:
        return (await rest.post("/segment", content=image)).raise_for_status().content

    async def over_grpc(image: bytes) -> bytes:
        return bytes((await stub.Segment(pb.SegmentRequest(image=image), timeout=300)).png)

    return await asyncio.gather(
        *((over_grpc if number % 2 else over_rest)(image) for number, image in enumerate(images))
    )


async def _batches(rest: httpx.AsyncClient) -> tuple[float, float]:
    """Return how many frames and batches went to the device so far."""
    text = (await rest.get("/metrics")).text
    frames, batches = (float(text.partition(f"\npranet_batch_size_{part} ")[2].split()[0]) for part in ("sum", "count"))
    return frames, batches
