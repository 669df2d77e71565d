"""The processor: how many cores this process may use, and in which precisions they compute fast."""

import contextlib
import math
import os
from collections.abc import Collection
from pathlib import Path, PurePosixPath

CPU_INFO = Path("/proc/cpuinfo")
BFLOAT16 = {"avx512_bf16", "amx_bf16"}  # flags of x86-64 processors that multiply bfloat16
VNNI, AMX = "avx512_vnni", "amx_tile"  # flags of those that multiply int8, and that have units for whole tiles
OWN_CGROUPS = Path("/proc/self/cgroup")
CGROUPS = Path("/sys/fs/cgroup")
NO_QUOTA = 2**31


def usable_cores(*, processes: int = 1, own: Path = OWN_CGROUPS, mounted: Path = CGROUPS) -> int:
    """Return how many threads can run in parallel, by CPU affinity and the container's CPU quota; at least 1.

    Args:
        processes: how many share the quota; each may have an affinity of its own.
        own: the file that names the control groups of this process (cgroups(7)).
        mounted: where control groups are mounted.

    """
    pinned = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(pinned, _quota(own, mounted) // processes))


def share_of_cores(index: int, processes: int, cores: Collection[int]) -> set[int]:
    """Return the cores of one of several processes, neighbours; with more processes than cores, one core."""
    all_ = sorted(cores, key=_place)
    if processes >= len(all_):
        return {all_[index % len(all_)]}
    return set(all_[index * len(all_) // processes : (index + 1) * len(all_) // processes])


def computes_bfloat16(cpu_info: Path = CPU_INFO) -> bool:
    """Return whether this processor has bfloat16 instructions, which make it faster than float32."""
    return not BFLOAT16.isdisjoint(_flags(cpu_info))


def computes_int8(cpu_info: Path = CPU_INFO) -> bool:
    """Return whether int8 was measured to be the fastest on processors like this one: AVX-512 VNNI without AMX.

    With AMX, nobody has compared it with bfloat16 yet; without VNNI, some sums saturate.
    """
    flags = _flags(cpu_info)
    return VNNI in flags and AMX not in flags


def _flags(cpu_info: Path) -> set[str]:
    try:
        lines = cpu_info.read_text().splitlines()
    except OSError:  # not Linux
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def _quota(own: Path, mounted: Path) -> int:
    """Return the smallest quota, in cores, of the control groups of this process and of those around them."""
    found = [NO_QUOTA]
    with contextlib.suppress(OSError):  # not Linux
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            root = mounted / "cpu" if controllers else mounted  # of version 1, or of version 2
            group = PurePosixPath(path)
            found += [_quota_of(root / str(each).lstrip("/")) for each in (group, *group.parents)]
    return min(found)


def _quota_of(group: Path) -> int:
    with contextlib.suppress(OSError, ValueError):  # version 2: "max 100000" or "<quota> <period>", in microseconds
        quota, period = (group / "cpu.max").read_text().split()
        return math.ceil(int(quota) / int(period))
    with contextlib.suppress(OSError, ValueError):  # version 1: a quota of -1 is none
        quota_us, period_us = (int((group / f"cpu.cfs_{each}_us").read_text()) for each in ("quota", "period"))
        if quota_us > 0:
            return math.ceil(quota_us / period_us)
    return NO_QUOTA


def _place(core: int) -> tuple[int, int, int]:
    """Return the processor and the physical core of a logical one: threads of one core are neighbours."""
    at = Path(f"/sys/devices/system/cpu/cpu{core}/topology")
    try:
        return int((at / "physical_package_id").read_text()), int((at / "core_id").read_text()), core
    except (OSError, ValueError):
        return 0, core, core
