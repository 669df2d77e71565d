"""How a GPU fares, for metrics: a question that its driver does not answer is NaN, not an error."""

import contextlib
import math

import torch


def memory_used(device: torch.device) -> float:
    """Return the bytes in use on a GPU, by every process on it."""
    with contextlib.suppress(RuntimeError):  # after a fault of the device
        free, total = torch.cuda.mem_get_info(device)
        return total - free
    return math.nan


def utilization(device: torch.device) -> float:
    """Return the fraction of the last moments in which the GPU computed.

    NVML says it, which comes with the driver; its Python package is of the extra ``gpu``. A part of a GPU (MIG) has
    no such figure.
    """
    with contextlib.suppress(Exception):  # NVML's own errors, whose type is not there where its package is not
        return torch.cuda.utilization(device) / 100
    return math.nan
