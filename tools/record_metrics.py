"""Writes ``tests/data/metrics.json``: the metrics of each case by PySODMetrics 1.6.2, an independent implementation.

Its pinned dependencies conflict with ours, so it is not a test dependency. After changing the cases, run ``python -m
tools.record_metrics`` in a separate environment (``pip install pysodmetrics==1.6.2 pillow``).
"""

import json
from typing import Any

import numpy as np
import py_sod_metrics as independent

from tests.support.cases.masks import Levels, Mask, cases
from tests.support.pictures import DATA

CURVES = {
    "jaccard": independent.IOUHandler,
    "dice": independent.DICEHandler,
    "recall": independent.RecallHandler,
    "precision": independent.PrecisionHandler,
    "accuracy": independent.OverallAccuracyHandler,
}


def judge(levels: Levels, truth: Mask, stretched: bool) -> dict[str, Any]:
    """Return the metrics of one case; ``stretched`` selects the published protocol's normalisation."""
    handlers = {name: kind(with_dynamic=True, with_adaptive=False) for name, kind in CURVES.items()}
    handlers["f2"] = independent.FmeasureHandler(with_dynamic=True, with_adaptive=False, beta=4)  # beta squared
    overlap = independent.FmeasureV2(handlers)
    structure, alignment = independent.Smeasure(), independent.Emeasure()
    weighted, error = independent.WeightedFmeasure(), independent.MAE()
    given = (levels, truth * np.uint8(255)) if stretched else (levels / 255, truth)
    for metric in (overlap, structure, alignment, weighted, error):
        metric.step(*given, normalize=stretched)
    curves = {name: values["dynamic"] for name, values in overlap.get_results().items()}
    curves["e_measure"] = alignment.get_results()["em"]["curve"]
    return {
        "s_measure": float(structure.get_results()["sm"]),
        "weighted_f": float(weighted.get_results()["wfm"]),
        "mae": float(error.get_results()["mae"]),
        "mean": {name: float(np.mean(curve)) for name, curve in curves.items()},
        # of 256 thresholds from 255 down, the one that "probability > 0.5" is for 8-bit maps
        "half": {name: float(curve[255 - 128]) for name, curve in curves.items()},
    }


if __name__ == "__main__":
    recorded = {
        name: {"published": judge(levels, truth, True), "fixed": judge(levels, truth, False)}
        for name, levels, truth in cases()
    }
    (DATA / "metrics.json").write_text(json.dumps(recorded, indent=1) + "\n")
