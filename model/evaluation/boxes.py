"""Whether a box in the corner decides: black ones are painted into pictures, and those that are there painted out.

Nearly all public frames without a polyp carry such a box, so a network can learn that it means no polyp.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from model import transforms
from model.dice import dice
from model.engines.predictor import Predictor
from model.evaluation import bootstrap, maps
from model.evaluation.protocols import THRESHOLD
from model.pictures.reading import read_image
from model.presence import Presence
from model.training.augmentation import insets
from model.training.augmentation.insets import Inset
from model.training.data.pairs import PairFile, truth_of
from model.transforms import Floats, Pixels

SIDE = 1 / 3  # of a picture: width and height of the box painted into the lower left


def report(predictor: Predictor, files: Sequence[PairFile], presence: Presence | None) -> dict[str, Any]:
    """Compare each picture with itself, a box painted in or out, where that neither hides nor shows a polyp.

    Returns the number of pictures, and means with intervals: of the absolute change of the presence score, if there is
    a calibration, and of the Dice of the two masks outside of the box.
    """
    changes: list[float] = []
    overlaps: list[float] = []
    counts = {"painted_in": 0, "painted_out": 0}
    for file in files:
        image = np.asarray(read_image(file.image))
        truth = truth_of(file, image.shape[1], image.shape[0])
        found = insets.find(image)
        box = found or _corner(*truth.shape)
        if truth[box.area].any() or (found and insets.from_above(truth, box)[box.area].any()):
            continue
        counts["painted_out" if found else "painted_in"] += 1
        other = insets.from_above(image, box) if found else _covered(image, box)
        before, after = maps.logits_of(predictor, map(Image.fromarray, (image, other)))
        if presence:
            changes.append(abs(presence.score(after) - presence.score(before)))
        overlaps.append(dice(*(_outside(logits, box, truth) for logits in (before, after))))
    means = {"presence_change": changes, "mask_dice": overlaps}
    return counts | {name: bootstrap.mean(np.array(values)) for name, values in means.items() if values}


def _corner(height: int, width: int) -> Inset:
    box_width, box_height = round(SIDE * width), round(SIDE * height)
    return Inset(0, height - box_height, box_width, box_height)


def _covered(image: Pixels, box: Inset) -> Pixels:
    covered = image.copy()
    covered[box.area] = 0
    return covered


def _outside(logits: Floats, box: Inset, truth: Pixels) -> Pixels:
    mask = transforms.to_mask(transforms.upsample(logits, truth.shape[1], truth.shape[0]), THRESHOLD)
    mask[box.area] = 0
    return mask
