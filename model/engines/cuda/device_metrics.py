"""How a GPU fares, for metrics: a question that its driver does not answer is NaN, not an error."""

import math
from collections.abc import Callable

import torch


def memory_used(device: str) -> float:
    """Return the bytes in use on a GPU, by every process on it."""

    def used() -> float:
        free, total = torch.cuda.mem_get_info(device)
        return total - free

    return _answered(used)


def utilization(device: str) -> float:
    """Return the fraction of the last moments in which the GPU computed.

    NVML says it, which comes with the driver; its Python package is of the extra ``gpu``. A part of a GPU (MIG) has
    no such figure.
    """
    return _answered(lambda: torch.cuda.utilization(device) / 100)


def _answered(question: Callable[[], float]) -> float:
    try:
        return question()
    except Exception:  # of CUDA after a fault, or of NVML, whose errors have no type where its package is not
        return math.nan
