"""``make guards-check``: mutation tests of the lines that prevent known failures of other servers.

Each guard (``tools.guards``) names a failure, the line that prevents it here, and the test that covers it. In a copy of
the project the line is replaced, and the test must fail; with all lines in place, all tests must pass.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pictures import ROOT
from tools.guards.data_path import DATA_PATH
from tools.guards.guard import Guard
from tools.guards.programs import PROGRAMS
from tools.guards.transports import AROUND

PATIENCE = 300.0  # seconds; a test that hangs longer without its guard has failed
FAILED = 1  # pytest's exit code if a test failed; other codes mean that none ran
GUARDS = [*DATA_PATH, *AROUND, *PROGRAMS]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("project")
    for name in ("model", "service", "client", "proto", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns(".*", "__pycache__", "node_modules"))
    (copy / "weights").symlink_to(ROOT / "weights")
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def outcome(project: Path, *tests: str) -> int:
    """Run tests and return pytest's exit code; a test that hangs counts as failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    environment = os.environ | {
        "PYTHONPATH": str(project / "client")
    }  # otherwise the client would be the installed one
    process = subprocess.Popen([*command, *(f"tests/{test}" for test in tests)], cwd=project, env=environment)
    try:
        return process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        return FAILED


def test_with_every_guard_in_place_the_tests_pass(project: Path) -> None:
    assert outcome(project, *sorted({guard.test for guard in GUARDS})) == 0


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.rules_out)
def test_a_missing_guard_is_noticed(project: Path, guard: Guard) -> None:
    path = project / guard.file
    whole = path.read_text()
    assert whole.count(guard.line) == 1
    path.write_text(whole.replace(guard.line, guard.without))
    try:
        assert outcome(project, guard.test) == FAILED
    finally:
        path.write_text(whole)
