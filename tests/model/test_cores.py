"""How many cores an engine uses."""

from pathlib import Path

import pytest
import torch

from model import cores
from model.engines.torch import predictor as torch_predictor
from tests.support.patching import Patches


@pytest.mark.parametrize(("allowance", "expected"), [("50000 100000", 1), ("150000 100000", 2), ("max 100000", 1000)])
def test_a_container_uses_no_more_cores_than_it_may(
    allowance: str, expected: int, tmp_path: Path, patched: Patches
) -> None:
    patched(cores.os, "sched_getaffinity", lambda pid: set(range(1000)))
    (tmp_path / "own").write_text("0::/\n")
    (tmp_path / "cpu.max").write_text(allowance)
    assert cores.usable_cores(own=tmp_path / "own", mounted=tmp_path) == expected


@pytest.mark.parametrize(
    ("groups", "files"),
    [
        ("0::/system.slice/pranet.service\n", {"system.slice/pranet.service/cpu.max": "200000 100000"}),
        ("0::/pods/pod/container\n", {"pods/cpu.max": "200000 100000", "pods/pod/container/cpu.max": "max 100000"}),
        (
            "4:memory:/a\n3:cpu,cpuacct:/docker/1\n1:name=systemd:/docker/1\n",
            {"cpu/docker/1/cpu.cfs_quota_us": "150000", "cpu/docker/1/cpu.cfs_period_us": "100000"},
        ),
        (
            "3:cpu:/docker/1\n",  # as a container of version 1 sees it, whose group is mounted as the root
            {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"},
        ),
    ],
)
def test_the_quota_of_any_group_around_the_process_counts(
    groups: str, files: dict[str, str], tmp_path: Path, patched: Patches
) -> None:
    patched(cores.os, "sched_getaffinity", lambda pid: set(range(1000)))
    (tmp_path / "own").write_text(groups)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cores.usable_cores(own=tmp_path / "own", mounted=tmp_path) == 2


def test_pytorch_keeps_to_the_usable_cores(patched: Patches) -> None:
    patched(torch_predictor, "usable_cores", lambda: 1)
    threads = torch.get_num_threads()
    try:
        torch_predictor.limit_threads()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
