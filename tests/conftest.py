"""Fixtures that several files share, and the rule that nothing is skipped unseen in CI."""

import gc
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TypeVar

import hypothesis
import pytest

from tests.support import processes
from tests.support.patching import Patches, patching
from tests.support.pictures import ROOT

# What a CI machine may lack: the rest is installed by `.ci/run`, and DICOM on each Python that has it.
MAY_LACK = {
    "no CUDA",
    "this processor has no bfloat16",
    "this machine has no IPv6",
    "DICOM support needs Python 3.13 or earlier",
}

# `make test` runs the tests; a make that a test runs must not take itself for a part of it.
for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
    os.environ.pop(name, None)

# A shell starts its background jobs with Ctrl-C ignored; the commands that tests interrupt would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile(
    "untimed", deadline=None
)  # machines are busy; nothing asserts how long things take
hypothesis.settings.load_profile("untimed")

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--processes", type=int, default=1, help="of each server that a test starts")


def pytest_configure(config: pytest.Config) -> None:
    if (number := config.getoption("--processes")) > 1:
        processes.USUAL.extend(("--processes", number))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is about a process of its own where servers have several."""
    if config.getoption("--processes") > 1:
        left_out = [item for item in items if item.get_closest_marker("one_process")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def weights() -> Path:
    """Return the bundled weights."""
    return ROOT / "weights" / "pranet.safetensors"


@pytest.fixture(scope="session")
def server() -> Iterator[processes.Server]:
    """Serve the bundled weights in a process of its own, for every test that leaves it running."""
    with processes.server() as running:
        yield running


@pytest.fixture
def patched() -> Iterator[Patches]:
    """Replace names until the test ends, and fail it if nothing has used them."""
    with patching() as patches:
        yield patches


def pytest_collection_finish() -> None:
    """Keep what the imports made out of the collections of garbage, which took a sixth of the tests' processor time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _without_silent_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _without_silent_skip((yield))


def _without_silent_skip(report: Report) -> Report:
    """Turn a skip into a failure under CI, except for want of hardware or of a package for this Python."""
    expected_failure = hasattr(report, "wasxfail")
    if report.skipped and os.environ.get("CI") == "true" and not expected_failure:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if reason not in MAY_LACK:
            report.outcome = "failed"
            report.longrepr = f"skipped under CI: {reason}"
    return report
