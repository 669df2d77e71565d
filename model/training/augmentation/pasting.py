"""Pieces of other pictures, pasted in: polyps, which join the mask, and decoys and stool, which do not.

A pasted polyp shows the network one polyp in many places, clean frames among them. Its soft edge and its colours show
that it was pasted, so a network could learn these instead of the polyp. A decoy, polyp-free mucosa in the shape of a
polyp, has the same edge and teaches that the edge means nothing. A lump of stool has the shape of a polyp, and its
colour says what it is: it keeps most of that.
"""

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np

from model.transforms import Pixels

FEATHER = 0.02  # of the side: softness of the edge
TONED = 0.7  # of the difference in colour to what is covered; not all of it, since a polyp may differ from that
STOOL_TONED = 0.3


@dataclass(frozen=True)
class Donor:
    """A picture, RGB uint8 (H, W, 3), and which piece of it is pasted, uint8 (H, W) of 0 and 1.

    ``toned`` (0..1) of the difference in colour to what is covered is taken away.
    """

    image: Pixels
    piece: Pixels
    is_polyp: bool = True
    toned: float = TONED


def decoy(clean: Pixels, polyp: Pixels) -> Donor:
    """Return a donor of the piece of a polyp-free picture that a mask of another picture covers."""
    piece = cv2.resize(polyp, (clean.shape[1], clean.shape[0]), interpolation=cv2.INTER_NEAREST)
    return Donor(clean, cast(Pixels, piece), is_polyp=False)


def stool(clean: Pixels, lump: Pixels) -> Donor:
    """Return a donor of a lump, uint8 (H, W) of 0 and 1, in a polyp-free picture; most of its colour stays."""
    return Donor(clean, lump, is_polyp=False, toned=STOOL_TONED)


def paste(image: Pixels, mask: Pixels, donor: Donor) -> tuple[Pixels, Pixels]:
    """Blend the donor's piece into a picture of the same size with a soft edge, in the colours of where it lands.

    A polyp joins the mask. Anything else leaves it as it is, and is not pasted where it would touch a polyp.
    """
    side = 2 * round(FEATHER * len(mask)) + 1
    grown = cv2.dilate(donor.piece, np.ones((side, side), np.uint8))
    where = grown.astype(bool)
    if not where.any() or (not donor.is_polyp and mask[where].any()):
        return image, mask
    alpha = cv2.GaussianBlur(grown.astype(np.float32), (side, side), 0)[..., None]
    difference = image[where].mean(axis=0) - donor.image[where].mean(axis=0)
    blended = image * (1 - alpha) + (donor.image + donor.toned * difference) * alpha
    return np.clip(blended, 0, 255).astype(np.uint8), mask | donor.piece if donor.is_polyp else mask
