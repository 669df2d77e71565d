"""State that a stream keeps from frame to frame: smoothed logits, presence of a polyp, and the last picture.

Smoothing is exponential over capture time, so that dropped frames do not change its time constant:
``s += a * (logits - s)`` with ``a = 1 - exp(-dt / tau)``. It delays moving polyps by the mean age of the logits in the
sum, which grows from 0 towards ``tau``: ``age = (1 - a) * (age + dt)``. It restarts after a scene cut or a gap.

Hysteresis applies to presence: a polyp appears when the network's confidence exceeds the threshold by a margin, and
disappears when it falls below the threshold by the same margin. In between, presence does not change. A polyp that is
held while the confidence is below the threshold is drawn in the least area.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from model.transforms import Floats, Pixels, logit
from service.frames.quality import Quality, Stillness, judge, luma_of
from service.frames.regions import Box

GAP_SECONDS = 1.0  # time without a frame after which the state is reset
CUT_DIFFERENCE = 30.0  # mean absolute difference of reduced pictures, 0 to 255, above which it is another scene
CUT_SIDE = 44  # pixels; at this size, motion of small details hardly counts
MARGIN = 0.8  # of hysteresis, in logits: probabilities of 0.31 and 0.69 around a threshold of 0.5
LEAST_AREA = 0.0005  # smallest area of a polyp, as a fraction of the picture
ABOVE = 1e-3  # in logits: above the threshold, whatever is rounded later
SHAKE = 0.01  # of the larger side: by how much the borders of one region of interest may seem to move


@dataclass(frozen=True, slots=True)
class Status:
    """Quality and smoothing of a frame, which its answer reports beside the mask."""

    quality: tuple[Quality, ...] = ()  # problems of the picture
    added_delay: float = 0.0  # caused by smoothing, seconds
    seen: Floats | None = None  # smoothed logits, before hysteresis changes them for the mask


class TemporalFilter:
    """Smoothing and hysteresis over the frames of one stream, and what their quality is judged by.

    Args:
        smoothing: time constant, seconds; 0: off.
        hysteresis: apply hysteresis to the presence of a polyp.
        threshold: probability above which a pixel is polyp.

    """

    def __init__(self, *, smoothing: float = 0.0, hysteresis: bool = False, threshold: float = 0.5) -> None:
        self._tau = smoothing
        self._hysteresis = hysteresis
        self._level = logit(threshold)
        self._present = False
        self._smooth: Floats | None = None
        self._age = 0.0  # mean age of the logits in ``_smooth``, seconds
        self._still = Stillness()
        self._captured = -math.inf  # of the last frame, seconds
        self._scene: Pixels | None = None
        self._box: Box | None = None

    def restart(self) -> None:
        """Forget the logits before the next frame, as after a scene cut."""
        self._scene = None

    def update(self, pixels: Pixels, box: Box, logits: Floats, captured: float) -> tuple[Floats, Status]:
        """Add the next frame; return its smoothed logits, float32 (352, 352), and its status.

        Args:
            pixels: uint8 RGB (3, 352, 352), the network's input.
            box: the part of the frame that ``pixels`` shows; quite another box resets the state.
            logits: float32 (352, 352).
            captured: capture time, seconds, by any monotonic clock; a step back is a gap.

        """
        luma = luma_of(pixels)
        quality = judge(luma)
        if self._still.frozen(luma, captured):
            quality.append(Quality.FROZEN)
        elapsed = captured - self._captured
        if self._is_new_scene(luma, box, elapsed):
            self._smooth, self._present = None, False
        self._captured = captured
        shown, delay = self._smoothed(logits, elapsed) if self._tau else (logits, 0.0)
        seen = shown
        if self._hysteresis:
            shown = self._held(shown)
        return shown, Status(tuple(quality), delay, seen)

    def _is_new_scene(self, luma: Pixels, box: Box, elapsed: float) -> bool:
        scene = np.asarray(cv2.resize(luma, (CUT_SIDE, CUT_SIDE), interpolation=cv2.INTER_AREA), dtype=np.uint8)
        last, self._scene = self._scene, scene
        moved, self._box = self._box is None or _is_elsewhere(box, self._box), box
        gap = not 0 <= elapsed <= GAP_SECONDS
        return last is None or moved or gap or float(cv2.absdiff(scene, last).mean()) > CUT_DIFFERENCE

    def _smoothed(self, logits: Floats, elapsed: float) -> tuple[Floats, float]:
        if self._smooth is None:
            self._smooth, self._age = logits.copy(), 0.0
            return logits, 0.0
        share = -math.expm1(-max(elapsed, 1e-3) / self._tau)
        self._smooth += share * (logits - self._smooth)
        self._age = (1 - share) * (self._age + elapsed)
        return self._smooth.copy(), self._age

    def _held(self, logits: Floats) -> Floats:
        """Apply hysteresis: an empty mask while no polyp is present, a mask that is not empty while one is."""
        place = max(1, int(logits.size * LEAST_AREA))
        confidence = float(np.partition(logits, -place, axis=None)[-place])  # the least area has higher logits
        self._present = confidence > self._level + (-MARGIN if self._present else MARGIN)
        if not self._present:
            return np.minimum(logits, np.float32(self._level))
        return logits if confidence > self._level else logits + np.float32(self._level - confidence + ABOVE)


def _is_elsewhere(box: Box, last: Box) -> bool:
    """Whether a region of interest has moved by more than what is found in the noise of dark borders."""
    most = SHAKE * max(*box[2:], *last[2:])
    return any(abs(one - other) > most for one, other in zip(box, last, strict=True))
