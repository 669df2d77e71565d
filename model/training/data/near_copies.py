"""Pictures that show nearly the same: frames of one scene on both sides of a split flatter whoever is judged by it.

A perceptual hash holds the signs of the low frequencies of a picture's middle, each against their median: 120 bits that
change little by compression, size or brightness. The middle leaves out the surround, letters and boxes that all
pictures of an endoscope share.
"""

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from model.cores import usable_cores
from model.pictures.reading import read_image
from model.training.data import sources
from model.training.data.pairs import DatasetError, PairFile

Hash = npt.NDArray[np.bool_]

MIDDLE = 0.7  # of each side of a picture
SIDE = 32  # to which it is shrunk, pixels
LOWEST = 11  # frequencies in either direction
NEAR = 0.15  # of the bits, that near-copies may differ in


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
        print(
            f"{copy.there} (validation) is a near-copy of {copy.here}: "
            f"{copy.distance:.1%} of {LOWEST**2 - 1} bits differ"
        )
    print(f"{len(found)} near-copies between {len(training)} pictures of training and {len(validation)} of validation")
    return int(bool(found))


def find(here: Sequence[PairFile], there: Sequence[PairFile]) -> Iterator[NearCopy]:
    """Yield the pictures of ``there`` that have a near-copy in ``here``, each with its nearest."""
    with ThreadPoolExecutor(usable_cores()) as readers:
        ours, theirs = (np.stack(list(readers.map(_hash_of, files))) for files in (here, there))
    for file, bits in zip(there, theirs, strict=True):
        distances = (ours != bits).mean(axis=1)
        nearest = int(distances.argmin())
        if distances[nearest] <= NEAR:
            yield NearCopy(here[nearest].name, file.name, float(distances[nearest]))


def perceptual_hash(image: npt.NDArray[np.uint8]) -> Hash:
    """Return the 120 bits of RGB uint8 (H, W, 3)."""
    height, width = image.shape[:2]
    top, left = round(height * (1 - MIDDLE) / 2), round(width * (1 - MIDDLE) / 2)
    middle = cv2.cvtColor(image[top : height - top, left : width - left], cv2.COLOR_RGB2GRAY)
    small = cv2.resize(middle, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:LOWEST, :LOWEST].ravel()[1:]  # the first is the brightness
    return np.asarray(low > np.median(low))


def _hash_of(file: PairFile) -> Hash:
    return perceptual_hash(np.asarray(read_image(file.image)))
