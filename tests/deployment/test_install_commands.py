"""Every command that installs something takes our own packages from the checkout: their names are free on PyPI."""

import re
import subprocess
import tomllib

import pytest

from model.errors import how_to_install
from tests.support.pictures import ROOT

WRITTEN = (".py", ".md", ".html", ".js", ".toml", ".yaml", ".yml", ".sh", ".service", ".txt", "Makefile", "Dockerfile")
BY_NAME = re.compile(r"install\b[^\n`]*[\s'\"]pranet[-_](service|client)\b[^\n`]*")
# docker/install.sh, whose function adds --no-index
FROM_THE_BUNDLE = "install --no-deps --force-reinstall pranet-service  # builds of one version differ"


def test_nothing_tells_anybody_to_install_our_name_from_an_index() -> None:
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    files = [ROOT / name for name in names if name.endswith(WRITTEN) and "tests/" not in name]
    assert len(files) > 150
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in files
        if path.exists()
        for match in BY_NAME.finditer(path.read_text())
    ]
    assert found == [f"docker/install.sh: {FROM_THE_BUNDLE}"]
    assert "--no-index" in (ROOT / "docker" / "install.sh").read_text()


@pytest.mark.parametrize("extra", ["bench", "dicom", "export", "int8", "video"])
def test_the_command_for_an_extra_names_one_that_exists(extra: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extra in project["optional-dependencies"]
    assert how_to_install(extra) == f"in the checkout, run .venv/bin/python -m pip install -e '.[{extra}]'"


def test_the_check_of_the_image_refuses_before_it_downloads_what_it_cannot_use() -> None:
    dry = subprocess.run(["make", "--dry-run", "image-check"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "command -v buildah" in dry.stdout.splitlines()[0]
    without = ["make", "image-programs", "SHELL=/bin/sh", "PATH=/nonexistent"]
    refused = subprocess.run(without, cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "image-check needs root, buildah and debootstrap; install both" in refused.stderr
