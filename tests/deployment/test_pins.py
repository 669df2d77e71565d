"""The files of pinned packages agree: one environment gets them one after another."""

import re
import subprocess
from datetime import date
from itertools import combinations, pairwise
from pathlib import Path

import pytest

from tests.support.pictures import ROOT

REQUIREMENTS = ROOT / "requirements"
GROWING = ("serve", "image", "ray", "dev")  # each has all of the one before
LOCKED = sorted([*REQUIREMENTS.glob("*.txt"), *(ROOT / "tests" / "interoperability").glob("*_client/*.txt")])
PIN = re.compile(r"^([a-z0-9][\w.-]*)==([^\s;\\]+)", re.MULTILINE)


def pins(path: Path) -> dict[str, set[str]]:
    """Return the versions of each package; markers may choose between several."""
    versions: dict[str, set[str]] = {}
    for name, version in PIN.findall(path.read_text()):
        versions.setdefault(name, set()).add(version)
    return versions


FILES = {name: pins(REQUIREMENTS / f"{name}.txt") for name in ("torch", *GROWING)}  # audit has its own environment
FILES["peers"] = pins(ROOT / "tools" / "peers" / "requirements.txt")


@pytest.mark.parametrize(("one", "other"), list(combinations(sorted(FILES), 2)))
def test_two_files_pin_the_same_version_of_what_they_share(one: str, other: str) -> None:
    """Else `make test` changes what `make serve` installed, and an image serves with other packages than the tests."""
    shared = FILES[one].keys() & FILES[other].keys()
    assert {name: FILES[one][name] for name in shared} == {name: FILES[other][name] for name in shared}


@pytest.mark.parametrize(("smaller", "larger"), list(pairwise(GROWING)))
def test_a_larger_file_has_all_of_a_smaller_one(smaller: str, larger: str) -> None:
    assert FILES[smaller].keys() <= FILES[larger].keys()
    assert len(FILES[smaller]) > 30


def test_the_audit_fails_for_what_it_could_not_look_up_and_covers_pytorch() -> None:
    """Without --strict, pip-audit passes where PyPI does not answer: nothing was audited, and nothing was found."""
    done = subprocess.run(["make", "-n", "audit"], cwd=ROOT, capture_output=True, text=True, check=True)
    audits = [line.split() for line in done.stdout.splitlines() if "bin/pip-audit" in line]
    assert all("--strict" in words for words in audits)
    assert {words[-1] for words in audits} == {"requirements/image.txt", "requirements/torch.txt"}


@pytest.mark.parametrize("path", LOCKED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_file_of_pins_says_when_they_were_made(path: Path) -> None:
    """Whoever judges how current they are reads it there: a clone has no dates of files."""
    (day,) = re.findall(r"^# Pinned on (\d{4}-\d\d-\d\d)\b", path.read_text(), re.MULTILINE)
    assert date.fromisoformat(day) >= date(2026, 11, 24)
