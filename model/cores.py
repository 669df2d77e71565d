"""The processor: how many cores this process may use, and whether they compute in bfloat16."""

import math
import os
from collections.abc import Collection
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
BFLOAT16 = {"avx512_bf16", "amx_bf16"}  # flags of x86-64 processors that multiply bfloat16
CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # cgroup v2: "max 100000" or "<quota> <period>", both in microseconds


def usable_cores(cpu_max: Path = CPU_MAX, *, processes: int = 1) -> int:
    """Return how many threads can run in parallel, by CPU affinity and the container's CPU quota; at least 1.

    Args:
        cpu_max: file with the quota.
        processes: how many share the quota; each may have an affinity of its own.

    """
    pinned = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(pinned, _quota(cpu_max) // processes))


def share_of_cores(index: int, processes: int, cores: Collection[int]) -> set[int]:
    """Return the cores of one of several processes, neighbours; with more processes than cores, one core."""
    all_ = sorted(cores)
    if processes >= len(all_):
        return {all_[index % len(all_)]}
    return set(all_[index * len(all_) // processes : (index + 1) * len(all_) // processes])


def computes_bfloat16(cpu_info: Path = CPU_INFO) -> bool:
    """Return whether this processor has bfloat16 instructions, which make it faster than float32."""
    try:
        lines = cpu_info.read_text().splitlines()
    except OSError:  # not Linux
        return False
    flags = next((line for line in lines if line.startswith("flags")), "")
    return not BFLOAT16.isdisjoint(flags.split())


def _quota(cpu_max: Path) -> int:
    try:
        quota, period = cpu_max.read_text().split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # no cgroup v2, or no quota
        return 2**31
