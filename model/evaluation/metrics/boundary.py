"""How far the outline of a predicted mask is from the true one."""

import math

import cv2
import numpy as np

from model.evaluation.metrics.overlap import Mask


def boundary_error(mask: Mask, truth: Mask) -> float:
    """Mean distance between two outlines, both ways, as a fraction of the diagonal of the picture (H, W).

    Both masks empty = 0; one empty = 1, the largest value.
    """
    if not mask.any() or not truth.any():
        return float(mask.any() or truth.any())
    mine, true = _outline(mask), _outline(truth)
    there, back = _distance_to(true)[mine], _distance_to(mine)[true]
    return float((there.sum() + back.sum()) / (len(there) + len(back)) / math.hypot(*truth.shape))


def _outline(mask: Mask) -> Mask:
    """Pixels of the mask with a 4-neighbour outside of it; beyond the edge of the picture is outside."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(mask & ~inner)


def _distance_to(outline: Mask) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    away = (~outline).astype(np.uint8)
    return np.asarray(cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)
