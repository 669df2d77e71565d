"""Pixels to network input, logits to mask; also the input size and the normalisation constants.

For a mask at threshold t, the logits are upsampled to the frame's size (bilinear, ``align_corners=False``) and compared
with ``log(t / (1 - t))``. This equals ``sigmoid(logit) > t``, but needs no probability for every pixel.
"""

import math

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

SIZE = 352  # side of the network's square input, pixels, for which its weights are trained
SIZES = range(256, 513, 32)  # sides that the network may get instead: it halves a picture five times
MEAN = (0.485, 0.456, 0.406)  # ImageNet, RGB, for values in 0..1
STD = (0.229, 0.224, 0.225)

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def to_input(picture: Image.Image, size: int = SIZE) -> Pixels:
    """Resize an RGB picture of any size to uint8 (3, size, size): bilinear with antialiasing, as in training."""
    planes = np.empty((3, size, size), np.uint8)
    cv2.split(np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR)), list(planes))
    return planes


def upsample(logits: Floats, width: int, height: int) -> Floats:
    """Resize float32 logits (h, w) to float32 (height, width): bilinear, ``align_corners=False``."""
    resized = cv2.resize(logits, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.float32)


def to_mask(logits: Floats, threshold: float) -> Pixels:
    """Map float32 logits (H, W) to a uint8 mask (H, W): 255 where the probability exceeds ``threshold``, else 0."""
    above = logits > logit(threshold)
    return np.multiply(above.view(np.uint8), np.uint8(255))


def sigmoid(logits: Floats) -> Floats:
    """Map logits of any shape to probabilities (0..1) of the same shape, float32, without overflow."""
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * logits), dtype=np.float32)


def logit(probability: float) -> float:
    """Return the logit of a probability: -inf at 0 or below, inf at 1 or above."""
    if probability <= 0:
        return -math.inf
    return math.inf if probability >= 1 else math.log(probability / (1 - probability))
