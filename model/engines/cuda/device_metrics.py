"""Memory and utilisation of a GPU for metrics; NaN if the driver gives no answer."""

import math
from collections.abc import Callable

import torch


def memory_used(device: str) -> float:
    """Return the bytes in use on a GPU by all processes; NaN if unknown."""

    def used() -> float:
        free, total = torch.cuda.mem_get_info(device)
        return total - free

    return _answered(used)


def utilization(device: str) -> float:
    """Return the fraction (0..1) of the driver's last sampling period in which the GPU was busy; NaN if unknown.

    The value comes from NVML, which needs the Python package in the extra ``gpu``. A MIG partition has no such value.
    """
    return _answered(lambda: torch.cuda.utilization(device) / 100)


def _answered(question: Callable[[], float]) -> float:
    try:
        return question()
    except Exception:  # CUDA after a fault, or NVML, whose error types may not be installed
        return math.nan
