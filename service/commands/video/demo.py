"""A synthetic video: a sweep over a bundled sample."""

from typing import Any

import cv2
import numpy as np
from PIL import Image

from service import SAMPLES

FRAMES = 120  # of one sweep forth and back
SIZE = (640, 480)  # pixels
SAMPLE = SAMPLES / "polyp-1.jpg"
JPEG_QUALITY = 92


def sweep() -> list[bytes]:
    """Return JPEG frames that pan and zoom over a bundled sample, forth and back, with changing brightness."""
    sample = np.asarray(Image.open(SAMPLE).convert("RGB"))[:, :, ::-1]  # BGR, as OpenCV has it
    width, height = SIZE
    frames = []
    for number in range(FRAMES):
        phase = 2 * np.pi * number / FRAMES
        zoom = 1.25 + 0.2 * np.cos(phase)
        scale = zoom * max(width / sample.shape[1], height / sample.shape[0])
        shift = 0.06 * np.array([np.sin(phase) * width, np.sin(2 * phase) * height])
        centre = np.array([sample.shape[1], sample.shape[0]]) / 2
        offset = np.array([width, height]) / 2 - scale * centre + shift
        moved = cv2.warpAffine(
            sample, np.array([[scale, 0, offset[0]], [0, scale, offset[1]]]), SIZE, borderMode=cv2.BORDER_REFLECT
        )
        lit = cv2.convertScaleAbs(moved, alpha=0.85 + 0.15 * float(np.cos(3 * phase)))
        frames.append(jpeg(lit))
    return frames


def jpeg(pixels: Any) -> bytes:
    """Encode uint8 BGR pixels (H, W, 3) as JPEG."""
    return cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))[1].tobytes()
