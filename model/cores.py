"""The processor: how many of its cores this process may use (pinned to, or its container may spend), what they can."""

import math
import os
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
BFLOAT16 = {"avx512_bf16", "amx_bf16"}  # flags of x86-64 processors that multiply it
CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # cgroup v2: "max 100000" or "<quota> <period>", both in microseconds


def usable_cores(cpu_max: Path = CPU_MAX) -> int:
    """Return the number of cores worth a thread each; at least 1."""
    pinned = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(pinned, _quota(cpu_max)))


def computes_bfloat16(cpu_info: Path = CPU_INFO) -> bool:
    """Tell whether bfloat16 is faster here than float32."""
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
    except (OSError, ValueError):  # no cgroup v2, or no limit
        return 2**31
