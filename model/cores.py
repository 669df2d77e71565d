"""How many processor cores this process may use: what it is pinned to, and what its container may spend."""

import math
import os
from pathlib import Path

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # cgroup v2: "max 100000" or "<quota> <period>", both in microseconds


def usable_cores(cpu_max: Path = CPU_MAX) -> int:
    """Return the number of cores worth a thread each; at least 1."""
    pinned = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(pinned, _quota(cpu_max)))


def _quota(cpu_max: Path) -> int:
    try:
        quota, period = cpu_max.read_text().split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # no cgroup v2, or no limit
        return 2**31
