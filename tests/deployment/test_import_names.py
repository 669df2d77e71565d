"""``pranet`` works in any folder, also in one with a ``model.py`` and a ``service.py``."""

import subprocess
from pathlib import Path

import pytest

from tests.support.pictures import SAMPLES
from tests.support.processes import SCRIPTS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder whose own modules are named as packages of the service."""
    for name in ("model", "pranet_client", "service", "weights"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name}.py of the working directory was imported')")
    return tmp_path


def pranet(folder: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [str(SCRIPTS / "pranet"), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", ["serve", "segment", "stream"])
def test_a_command_explains_itself_there(command: str, folder: Path) -> None:
    done = pranet(folder, command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"usage: pranet {command}" in done.stdout


@pytest.mark.slow
def test_a_picture_is_segmented_there(folder: Path) -> None:
    done = pranet(folder, "segment", SAMPLES[0], "-o", "masks")
    assert done.returncode == 0, done.stderr
    assert (folder / "masks" / f"{SAMPLES[0].name}.png").is_file()
