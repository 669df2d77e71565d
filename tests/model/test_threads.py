import os
import subprocess
import sys

import pytest

from tests.support.pictures import ROOT


def spin_count(given: dict[str, str]) -> int:
    """How often a thread of PyTorch looks for work before it sleeps, as libgomp tells in a process of the service."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, "-c", "import service, torch"]
    told = subprocess.run(
        command, cwd=ROOT, env=environment | given | {"OMP_DISPLAY_ENV": "VERBOSE"}, capture_output=True, text=True
    )
    (line,) = (line for line in told.stderr.splitlines() if "GOMP_SPINCOUNT" in line)
    return int(line.split("'")[1])


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, 10_000), ({"GOMP_SPINCOUNT": "77"}, 77), ({"OMP_WAIT_POLICY": "passive"}, 0)],
    ids=["by default", "as given", "by the policy given"],
)
def test_threads_of_pytorch_that_wait_soon_sleep_unless_the_environment_says_otherwise(given, expected):
    assert spin_count(given) == expected
