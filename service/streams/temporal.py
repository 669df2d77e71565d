"""What a stream remembers from frame to frame: smoothed logits, whether there is a polyp, and the last picture.

Smoothing is exponential over the time of capture, so that dropped frames do not change its time constant:
``s += a * (logits - s)`` with ``a = 1 - exp(-dt / tau)``. What moves is shown late by ``dt * (1 - a) / a``, the mean
age of what the sum is made of. It starts anew after a scene cut or a gap.

Hysteresis is on presence: a polyp appears when the network is surer than the threshold asks for, and disappears when it
is less sure than that by as much. In between, what was last shown holds.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from model.transforms import Floats, Pixels, logit
from service.frames.regions import Box
from service.streams.quality import Quality, Stillness, judge

GAP_SECONDS = 1.0  # without a frame, after which the past says nothing
CUT_DIFFERENCE = 30.0  # mean of absolute differences between reduced pictures, of 255: another scene
CUT_SIDE = 44  # pixels of the reduced picture: sharp details may move, the scene may not
MARGIN = 0.8  # of hysteresis, in logits: 0.31 and 0.69 around a threshold of 0.5
LEAST_AREA = 0.0005  # of the picture: a polyp is at least so large


@dataclass(frozen=True, slots=True)
class Status:
    """What is said beside the answer of a frame."""

    quality: tuple[Quality, ...] = ()
    added_delay: float = 0.0  # by smoothing, seconds


class Memory:
    """The state of one stream; frames come in order."""

    def __init__(self, *, smoothing: float = 0.0, hysteresis: bool = False, threshold: float = 0.5) -> None:
        self._tau = smoothing  # seconds; 0 is off
        self._hysteresis = hysteresis
        self._level = logit(threshold)
        self._present = False
        self._smooth: Floats | None = None
        self._still = Stillness()
        self._captured = -math.inf  # of the last frame, seconds
        self._scene: Pixels | None = None
        self._box: Box | None = None

    def update(self, pixels: Pixels, box: Box, logits: Floats, captured: float) -> tuple[Floats, Status]:
        """Take in a frame; return its logits as they are to be shown.

        Args:
            pixels: uint8 RGB (3, 352, 352), what the network saw.
            box: where that is in the frame; another box is another scene.
            logits: float32 (352, 352).
            captured: seconds, by any clock.

        """
        luma = np.asarray(cv2.cvtColor(pixels.transpose(1, 2, 0), cv2.COLOR_RGB2GRAY), dtype=np.uint8)
        quality = judge(luma)
        if self._still.frozen(luma, captured):
            quality.append(Quality.FROZEN)
        elapsed = captured - self._captured
        if self._is_new_scene(luma, box, elapsed):
            self._smooth, self._present = None, False
        self._captured = captured
        shown, delay = self._smoothed(logits, elapsed) if self._tau else (logits, 0.0)
        if self._hysteresis:
            shown = self._held(shown)
        return shown, Status(tuple(quality), delay)

    def _is_new_scene(self, luma: Pixels, box: Box, elapsed: float) -> bool:
        scene = np.asarray(cv2.resize(luma, (CUT_SIDE, CUT_SIDE), interpolation=cv2.INTER_AREA), dtype=np.uint8)
        last, self._scene = self._scene, scene
        moved, self._box = box != self._box, box
        return last is None or moved or elapsed > GAP_SECONDS or float(cv2.absdiff(scene, last).mean()) > CUT_DIFFERENCE

    def _smoothed(self, logits: Floats, elapsed: float) -> tuple[Floats, float]:
        if self._smooth is None:
            self._smooth = logits.copy()
            return logits, 0.0
        share = -math.expm1(-max(elapsed, 1e-3) / self._tau)
        self._smooth += share * (logits - self._smooth)
        return self._smooth.copy(), max(elapsed, 1e-3) * (1 - share) / share

    def _held(self, logits: Floats) -> Floats:
        """Show nothing until presence is sure; then show something until absence is."""
        place = max(1, int(logits.size * LEAST_AREA))
        sureness = float(np.partition(logits, -place, axis=None)[-place])  # exceeded by the least area
        self._present = sureness > self._level + (-MARGIN if self._present else MARGIN)
        if not self._present:
            return np.minimum(logits, np.float32(self._level))
        return logits if sureness > self._level else logits + np.float32(MARGIN)
