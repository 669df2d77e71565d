"""Pictures that show nearly the same: frames of one scene on both sides of a split flatter whoever is judged by it.

A perceptual hash holds the signs of the low frequencies of a picture's middle, each against their median: 120 bits that
change little by compression, size or brightness. The middle leaves out the surround, letters and boxes that all
pictures of an endoscope share. A frame a moment later is moved, so each picture of one side is also tried moved,
cropped, enlarged and mirrored; among so many tries some come near by chance, so these must come nearer.
"""

import argparse
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from model.cores import usable_cores
from model.pictures.reading import read_image
from model.training.data import sources
from model.training.data.pairs import DatasetError, PairFile

Hash = npt.NDArray[np.bool_]  # (120,), or (versions, 120)

MIDDLE = 0.7  # of each side of a picture
SIDE = 32  # to which it is shrunk, pixels
LOWEST = 11  # frequencies in either direction
BITS = LOWEST**2 - 1
NEAR = 0.15  # of the bits, that near-copies may differ in
MOVED_NEAR = 0.11  # the same where one of them was moved, cropped or mirrored
REDUCED = 256  # sides of what is moved and cropped, pixels
SHIFTS = (-0.04, -0.02, 0.0, 0.02, 0.04)  # of the sides
SCALES = (0.9, 0.95, 1.0, 1 / 0.95, 1 / 0.9)


class NearCopy(NamedTuple):
    """A picture on either side of a split, and the share of the bits of their hashes that differ."""

    here: str
    there: str
    distance: float


def report(args: argparse.Namespace) -> int:
    """Print the near-copies between what would be trained on and ``--validation``; the status is 1 if there are any.

    Raises:
        DatasetError: pictures or lists cannot be used, or ``--validation`` is left out.

    """
    if args.validation is None:
        raise DatasetError("--near-copies needs the other side of the split; give --validation FILE")
    training, validation = map(sources.files_of, sources.split(args))
    found = sorted(find(training, validation), key=lambda each: each.distance)
    for copy in found:
        print(f"{copy.there} (validation) is a near-copy of {copy.here}: {copy.distance:.1%} of {BITS} bits differ")
    print(f"{len(found)} near-copies between {len(training)} pictures of training and {len(validation)} of validation")
    return int(bool(found))


def find(here: Sequence[PairFile], there: Sequence[PairFile]) -> Iterator[NearCopy]:
    """Yield the pictures of ``there`` that have a near-copy in ``here``, each with its nearest."""
    with ThreadPoolExecutor(usable_cores()) as readers:
        ours = _signs(np.stack(list(readers.map(_hash_of, here))))
        for file, tried in zip(there, readers.map(_versions_of, there), strict=True):
            distances = (BITS - _signs(tried) @ ours.T) / 2 / BITS  # (versions, here)
            distances[0, distances[0] > NEAR] = 1
            distances[1:][distances[1:] > MOVED_NEAR] = 1
            nearest = int(distances.min(axis=0).argmin())
            if distances[:, nearest].min() < 1:
                yield NearCopy(here[nearest].name, file.name, float(distances[:, nearest].min()))


def perceptual_hash(image: npt.NDArray[np.uint8]) -> Hash:
    """Return the 120 bits of RGB uint8 (H, W, 3)."""
    height, width = image.shape[:2]
    top, left = round(height * (1 - MIDDLE) / 2), round(width * (1 - MIDDLE) / 2)
    grey = cv2.cvtColor(image[top : height - top, left : width - left], cv2.COLOR_RGB2GRAY)
    return _bits(_frequencies(grey))


def versions(image: npt.NDArray[np.uint8]) -> Hash:
    """Return the bits of RGB uint8 (H, W, 3) and, after them, those of it moved, cropped, enlarged and mirrored."""
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (REDUCED, REDUCED), interpolation=cv2.INTER_AREA)
    mirror = np.where(np.arange(LOWEST) % 2, -1, 1)  # turns odd frequencies over
    hashes = [perceptual_hash(image)]
    for x, y, scale in itertools.product(SHIFTS, SHIFTS, SCALES):
        side = MIDDLE * scale
        left, top = (round(REDUCED * ((1 - side) / 2 + shift)) for shift in (x, y))
        end = round(REDUCED * side)
        low = _frequencies(grey[top : top + end, left : left + end])
        hashes += [_bits(low), _bits(low * mirror)]
    return np.stack(hashes)


def _frequencies(middle: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the lowest frequencies (11, 11) of grey levels (H, W)."""
    small = cv2.resize(middle, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    return np.asarray(cv2.dct(small)[:LOWEST, :LOWEST], np.float32)


def _bits(low: npt.NDArray[Any]) -> Hash:
    values = low.ravel()[1:]  # the first is the brightness
    return np.asarray(values > np.median(values))


def _signs(bits: Hash) -> npt.NDArray[np.float64]:
    return np.where(bits, 1.0, -1.0)


def _hash_of(file: PairFile) -> Hash:
    return perceptual_hash(np.asarray(read_image(file.image)))


def _versions_of(file: PairFile) -> Hash:
    return versions(np.asarray(read_image(file.image)))
