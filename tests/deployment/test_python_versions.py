"""What differs between the Pythons that the service runs on, and what a start says of others."""

import sqlite3
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from service.dicom import availability
from service.errors import UnsupportedImage
from tests.support.patching import Patches
from tests.support.pictures import ROOT

# Runs the given script as another Python would see itself.
DISGUISED = """#!/bin/sh
exec {python} -c "import runpy, sys; {changes}; sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], None, '__main__')" "$@"
"""
VERSION = "sys.version_info = ({}, {}, 0, 'final', 0)"


def test_a_database_that_highdicom_leaves_open_fails_no_test() -> None:
    """Python 3.13 and later warn where one is collected, in whichever test that happens."""
    connection = sqlite3.connect(":memory:")
    connection.close()
    warnings.warn(f"unclosed database in {connection!r}", ResourceWarning, stacklevel=1)


def test_anything_else_left_open_fails_the_test() -> None:
    with pytest.raises(ResourceWarning, match="unclosed file"):
        warnings.warn("unclosed file <_io.FileIO name=3>", ResourceWarning, stacklevel=1)


def first_words_of_make(folder: Path, changes: str) -> "subprocess.CompletedProcess[str]":
    """Begin ``make serve`` with a Python that thinks of itself what ``changes`` says."""
    python = folder / "python"
    python.write_text(DISGUISED.format(python=sys.executable, changes=changes))
    python.chmod(0o755)
    environment = folder / "venv"
    command = ["make", "--no-print-directory", f"PYTHON={python}", f"VENV={environment}", f"{environment}/.torch"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert not environment.exists()
    return done


@pytest.mark.parametrize("version", [(2, 7), (3, 8), (3, 10), (3, 15), (4, 0)])
def test_a_start_with_another_python_is_one_line_that_says_which_are_right(
    version: tuple[int, int], tmp_path: Path
) -> None:
    done = first_words_of_make(tmp_path, VERSION.format(*version))
    (line, of_make) = done.stderr.splitlines()
    assert line.startswith(f"pranet: Python 3.11 to 3.14 is needed, and {tmp_path}/python is Python")
    assert "is Python {}.{}".format(*version) in line
    assert ("no packages for it yet" in line) == (version > (3, 14))
    assert line.endswith("name another: make PYTHON=python3.12")
    assert of_make.startswith("make: ***")
    assert not done.stdout


@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_a_start_without_venv_says_which_package_has_it(module: str, tmp_path: Path) -> None:
    """Debian has both in a package of their own."""
    done = first_words_of_make(tmp_path, f"{VERSION.format(3, 13)}; sys.modules['{module}'] = None")
    assert done.stderr.splitlines()[0].endswith("apt-get install python3.13-venv")
    assert not done.stdout


def test_a_start_without_any_python_says_so(tmp_path: Path) -> None:
    command = ["make", "--no-print-directory", "PYTHON=python3.99", f"VENV={tmp_path}/v", f"{tmp_path}/v/.torch"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.startswith("pranet: there is no python3.99; install Python, or name one: make PYTHON=")


@pytest.mark.parametrize("version", ["3.11", "3.14"])
def test_the_pythons_that_a_start_takes_are_those_of_the_package(version: str, tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11,<3.15"
    assert version in SpecifierSet(project["requires-python"])
    command = [
        sys.executable,
        "-c",
        f"import runpy, sys; {VERSION.format(*version.split('.'))}; runpy.run_path(*sys.argv[1:])",
    ]
    script = str(ROOT / "tools" / "check_python.py")
    assert subprocess.run([*command, script], capture_output=True, check=True).stderr == b""


def test_without_a_package_for_this_python_the_extra_is_installed_without_it(patched: Patches) -> None:
    """pyjpegls, which highdicom needs, has no wheel for 3.14; building it takes a compiler that most do not have."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [Requirement(each) for each in project["optional-dependencies"]["dicom"]]
    (highdicom,) = [each for each in needed if each.name == "highdicom"]
    assert highdicom.marker
    assert [highdicom.marker.evaluate({"python_version": each}) for each in ("3.11", "3.13", "3.14")] == [
        True,
        True,
        False,
    ]
    patched(availability, "PACKAGES", ("no_such_package",))
    patched(availability, "TOO_NEW", sys.version_info[:2])
    with pytest.raises(UnsupportedImage, match=r"needs Python 3\.13 or earlier"):
        availability.require()
