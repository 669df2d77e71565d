"""Maps and truths on which metrics are compared with an independent implementation; plain NumPy, so all repeat."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tests.support.pictures import SAMPLES, annotation

Levels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

STEP = 5  # real masks are thinned out: fewer pixels, the same shapes


def cases() -> Iterator[tuple[str, Levels, Mask]]:
    """Yield a name, an 8-bit map (H, W) and the truth (H, W)."""
    rng = np.random.default_rng(5)
    for sample in SAMPLES:
        truth = annotation(sample)[::STEP, ::STEP]
        yield f"{sample.stem}, blurred and moved", _blurred(np.roll(truth, (3, -4), (0, 1)), rng), truth
        yield f"{sample.stem}, 1-bit", np.roll(truth, (-2, 2), (0, 1)) * np.uint8(255), truth
        yield f"{sample.stem}, exact", truth * np.uint8(255), truth
        yield f"{sample.stem}, empty prediction", np.zeros(truth.shape, np.uint8), truth
        yield f"{sample.stem}, faint", _blurred(truth, rng) // 3 + np.uint8(20), truth
        yield f"{sample.stem}, noise against an empty truth", _blurred(truth, rng), np.zeros_like(truth)
    empty = np.zeros((12, 17), bool)
    yield "both empty", np.zeros(empty.shape, np.uint8), empty
    yield "full truth", rng.integers(0, 256, empty.shape, np.uint8), ~empty
    corner = empty.copy()
    corner[-4:-2, -4:-2] = True
    yield "few pixels near a corner", rng.integers(0, 256, empty.shape, np.uint8), corner


def _blurred(mask: Mask, rng: np.random.Generator) -> Levels:
    shifted = [np.roll(mask, (y, x), (0, 1)) for y in range(-3, 4) for x in range(-3, 4)]
    noisy = np.mean(shifted, axis=0) * 200 + rng.integers(0, 40, mask.shape)
    return noisy.astype(np.uint8)
