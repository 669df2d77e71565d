"""Metrics of salient-object detection that the PraNet paper reports: S-measure, E-measure, weighted F-measure.

Maps are float64 (H, W), 0..1; truth is bool (H, W). Where the papers leave a case open (an empty truth, the
rounding of a centroid, the divisor N - 1), the authors' MATLAB code decides.
"""

import cv2
import numpy as np
from scipy.ndimage import distance_transform_edt

from model.evaluation.metrics.overlap import Array, Counts, Mask

EPSILON = np.spacing(1.0)
OBJECT_SHARE = 0.5  # of the S-measure; the rest is the regions' (ICCV 2017, section 4.3)
WINDOW, SPREAD = 7, 5.0  # of the Gaussian that spreads errors inside the object (CVPR 2014, section 4)
HALF_WEIGHT = 5.0  # pixels from the object at which a false positive has half of its extra weight to come


def s_measure(probability: Array, truth: Mask) -> float:
    """Structure measure (Fan et al., ICCV 2017): likeness of objects and of four regions."""
    if not truth.any():
        return float(1 - probability.mean())
    if truth.all():
        return float(probability.mean())
    share = truth.mean()
    objects = share * _object(probability[truth]) + (1 - share) * _object(1 - probability[~truth])
    return float(max(0.0, OBJECT_SHARE * objects + (1 - OBJECT_SHARE) * _regions(probability, truth)))


def e_measure(count: Counts) -> Array:
    """Enhanced-alignment measure (Fan et al., IJCAI 2018) of binary masks, one value a threshold.

    A pixel's alignment depends on its class alone, so four counts replace the alignment matrix. The divisor N - 1
    is the authors': a perfect mask scores N / (N - 1).
    """
    size = sum(count)
    positive, true = count.tp + count.fp, count.tp + count.fn
    p, t = positive / size, true / size  # mean of mask and of truth, which the alignment subtracts
    aligned = (
        count.tp * _alignment(1 - p, 1 - t)
        + count.fp * _alignment(1 - p, -t)
        + count.fn * _alignment(-p, 1 - t)
        + count.tn * _alignment(-p, -t)
    )
    total = np.where(true == 0, size - positive, np.where(true == size, positive, aligned))
    return np.asarray(total / (size - 1 + EPSILON))


def weighted_f_measure(probability: Array, truth: Mask) -> float:
    """Weighted F-measure (Margolin et al., CVPR 2014), beta = 1; 0 for an empty truth.

    An error inside the object counts less among correct neighbours; one outside counts more, up to double, the
    farther away it is.
    """
    if not truth.any():
        return 0.0
    distance, nearest = distance_transform_edt(~truth, return_indices=True)
    error = np.abs(probability - truth)
    spread = _gaussian_mean(np.where(truth, error, error[nearest[0], nearest[1]]))
    forgiven = np.where(truth & (spread < error), spread, error)
    weighted = forgiven * np.where(truth, 1.0, 2 - 0.5 ** (distance / HALF_WEIGHT))
    true_positive = truth.sum() - weighted[truth].sum()
    recall = 1 - weighted[truth].mean()
    precision = true_positive / (true_positive + weighted[~truth].sum() + EPSILON)
    return float(2 * recall * precision / (recall + precision + EPSILON))


def _object(values: Array) -> float:
    """Likeness of one object's values (n,) to all ones (ICCV 2017, equation 5)."""
    mean = values.mean()
    deviation = values.std(ddof=1) if len(values) > 1 else 0.0
    return float(2 * mean / (mean**2 + 1 + deviation + EPSILON))


def _regions(probability: Array, truth: Mask) -> float:
    """Mean structural similarity of the four quarters around the truth's centroid, weighted by area."""
    rows, columns = np.nonzero(truth)
    y, x = int(np.round(rows.mean())) + 1, int(np.round(columns.mean())) + 1  # the centroid's pixel goes top left
    quarters = [(high, wide) for high in (slice(y), slice(y, None)) for wide in (slice(x), slice(x, None))]
    return sum(
        truth[quarter].size / truth.size * _similarity(probability[quarter], truth[quarter])
        for quarter in quarters
        if truth[quarter].size
    )


def _similarity(probability: Array, truth: Mask) -> float:
    """Structural similarity of one region (ICCV 2017, equation 1); two constant regions of zeros are alike."""
    x, y = probability.mean(), truth.mean()
    unbiased = probability.size - 1 + EPSILON
    x_variance, y_variance = ((probability - x) ** 2).sum() / unbiased, ((truth - y) ** 2).sum() / unbiased
    covariance = ((probability - x) * (truth - y)).sum() / unbiased
    alike, spread = 4 * x * y * covariance, (x**2 + y**2) * (x_variance + y_variance)
    if alike != 0:
        return float(alike / (spread + EPSILON))
    return 1.0 if spread == 0 else 0.0


def _alignment(mask: Array, truth: Array) -> Array:
    """Enhanced alignment of a pixel whose mask and truth, less their means, are given (IJCAI 2018, equations 2, 3)."""
    align = 2 * mask * truth / (mask**2 + truth**2 + EPSILON)
    return np.asarray((align + 1) ** 2 / 4)


def _gaussian_mean(values: Array) -> Array:
    reach = np.arange(WINDOW) - WINDOW // 2
    kernel = np.exp(-(reach**2) / (2 * SPREAD**2))
    kernel /= kernel.sum()
    return np.asarray(cv2.sepFilter2D(values, cv2.CV_64F, kernel, kernel, borderType=cv2.BORDER_CONSTANT))
