"""What the README says works."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.pictures import ROOT
from tests.support.processes import Server
from tools.readme_tables import README, with_tables

TEXT = README.read_text()
EXAMPLES = re.findall(r"```(\w+)\n(.*?)```", TEXT, flags=re.DOTALL)
COMMANDS = [line for language, block in EXAMPLES if language == "bash" for line in block.splitlines() if line]
SERVER_SIDE = ("make ", "docker ")  # tried by hand on a fresh machine, not from inside the tests


def run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def at(server: Server, example: str) -> str:
    """Let an example talk to the tests' own server."""
    return example.replace("http://127.0.0.1:8000", server.url).replace("127.0.0.1:8001", server.grpc_address)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder that looks like the project's, where examples may write."""
    for name in ("service", "weights", "model"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def test_its_tables_say_what_the_code_does() -> None:
    assert with_tables(TEXT) == TEXT, "run `make readme`"


def test_both_commands_stand_in_its_first_lines() -> None:
    first = "\n".join(TEXT.splitlines()[:30])
    assert "make serve" in first
    assert "make test" in first


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("curl ")])
def test_its_curl_lines_work(command: str, server: Server, folder: Path) -> None:
    run([*shlex.split(at(server, command)), "--fail"], folder)
    if "-o mask.png" in command:
        assert pixels(folder / "mask.png").shape == pixels(ROOT / "service/samples/polyp-1.jpg").shape[:2]


@pytest.mark.parametrize("example", [block for language, block in EXAMPLES if language == "python"])
def test_its_python_examples_work(example: str, server: Server, folder: Path) -> None:
    run([sys.executable, "-c", at(server, example)], folder)
    assert set(np.unique(pixels(folder / "mask.png"))) == {0, 255}


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith(".venv/bin/pranet ")])
def test_its_pranet_commands_work(command: str, server: Server, folder: Path) -> None:
    run([sys.executable, "-m", "service.commands.main", *shlex.split(at(server, command))[1:]], folder)


def test_every_other_command_is_one_that_sets_up_or_contains_the_service() -> None:
    tested = ("curl ", ".venv/bin/pranet ")
    assert all(command.startswith((*tested, *SERVER_SIDE)) for command in COMMANDS)


def test_every_make_target_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", TEXT)) - {"it"} <= targets


def test_every_file_it_names_exists() -> None:
    named = re.findall(r"\]\(([\w./-]+)\)", TEXT) + re.findall(
        r"`((?:service|model|weights|proto|docker)/[\w./-]*)`", TEXT
    )
    assert [name for name in named if not (ROOT / name).exists()] == []
