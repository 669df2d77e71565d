"""What README.md and docs/ say works: examples run, tables agree with the code, links lead somewhere."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from service.commands import main
from tests.support import videos
from tests.support.dicom_objects import HAS_DICOM, NO_DICOM, dicom, written
from tests.support.patching import Patches
from tests.support.pictures import ROOT, SAMPLES, annotation, dice
from tests.support.processes import Server
from tools import readme_picture
from tools.readme_tables import PAGES, marks, tables, with_tables

README = ROOT / "README.md"
LINKING = (
    *PAGES,
    *(
        ROOT / name
        for name in (
            "CHANGELOG.md",
            "SECURITY.md",
            "client/README.md",
            "weights/README.md",
            "service/samples/README.md",
        )
    ),
)
BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>[^>]+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)```", re.DOTALL)
LANGUAGES = {"bash", "python", "json", "text"}  # of which the first two are run
FEW = 16  # examples that no test can run
LINK = re.compile(r"\]\((?!https?:)(?P<path>[^)#\s]*)(?:#(?P<anchor>[^)\s]+))?\)")
DEFINED = re.compile(r"\[`(?P<name>[\w.]+)`\]\((?P<path>[^)#]+\.(?:py|proto))\)")
NAMED = re.compile(r"`((?:service|model|weights|proto|docker|docs|tests|tools|client)/[\w./-]*)`")
FOLDERS = ("service", "model", "weights", "proto", "tests")  # that examples use


@dataclass(frozen=True)
class Example:
    """One block of code of a page."""

    page: Path
    line: int
    language: str
    text: str
    reason: str | None  # why it is not run

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def examples_of(page: Path) -> list[Example]:
    text = page.read_text()
    return [
        Example(page, text.count("\n", 0, found.start()) + 1, found["language"], found["text"], found["reason"])
        for found in BLOCK.finditer(text)
    ]


EXAMPLES = [example for page in PAGES for example in examples_of(page)]
RUN = [example for example in EXAMPLES if example.language in ("bash", "python") and not example.reason]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder that looks like the project's, where examples may write."""
    for name in FOLDERS:
        (tmp_path / name).symlink_to(ROOT / name)
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, command in (("pranet", f"{sys.executable} -m service.commands.main"), ("python", sys.executable)):
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (programs / name).chmod(0o755)
    with Image.open(SAMPLES[0]) as picture:
        (tmp_path / "study.dcm").write_bytes(written(dicom([picture.convert("RGB")])))
    return tmp_path


def run(example: Example, server: Server, folder: Path) -> None:
    """Run an example against the tests' own server, as a reader would in the project's folder."""
    text = example.text.replace("http://127.0.0.1:8000", server.url).replace("127.0.0.1:8001", server.grpc_address)
    text = text.replace("ws://127.0.0.1:8000", server.url.replace("http", "ws", 1))
    if example.language == "bash":
        strict = 'curl() { command curl --silent --show-error --fail "$@"; }'
        command = ["bash", "-euo", "pipefail", "-c", f"{strict}\n{text}"]
    else:
        command = [sys.executable, "-c", text]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PRANET_")}
    environment |= {"PATH": path, "PRANET_PORT": server.url.rpartition(":")[2]}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("example", RUN, ids=str)
def test_every_example_works(example: Example, server: Server, folder: Path) -> None:
    if "study.dcm" in example.text and not HAS_DICOM:
        pytest.skip(NO_DICOM)
    run(example, server, folder)
    if (mask := folder / "mask.png").exists():
        assert set(np.unique(np.asarray(Image.open(mask)))) == {0, 255}


@pytest.mark.slow
def test_a_camera_is_shown_with_its_polyps_until_it_ends(server: Server, tmp_path: Path, patched: Patches) -> None:
    picture = cv2.imread(str(SAMPLES[0]))[:496, :568]  # even sides
    video = videos.write(tmp_path / "camera.mp4", [picture[:, :, ::-1]] * 5)
    shown: list[np.ndarray] = []
    patched(cv2, "imshow", lambda _, frame: shown.append(frame))  # the headless package has no window
    patched(cv2, "waitKey", lambda _: -1)
    recipe = next(example.text for example in EXAMPLES if "VideoCapture" in example.text)
    text = recipe.replace("VideoCapture(0)", f"VideoCapture({str(video)!r})")
    text = text.replace("http://127.0.0.1:8000", server.url).replace("127.0.0.1:8001", server.grpc_address)
    exec(compile(text, "docs/python.md", "exec"), {})  # what a reader would paste
    assert shown
    assert dice(shown[-1][:, :, 1] == 255, annotation(SAMPLES[0])[:496, :568]) > 0.7


def test_few_examples_are_not_run_and_each_says_why() -> None:
    assert {example.language for example in EXAMPLES} <= LANGUAGES
    assert sum(example.reason is not None for example in EXAMPLES) <= FEW


@pytest.mark.parametrize("example", [each for each in EXAMPLES if each.reason], ids=str)
def test_the_command_line_accepts_what_is_not_run(example: Example) -> None:
    lines = example.text.replace("\\\n", " ").splitlines()
    for line in lines:
        if line.startswith(".venv/bin/pranet "):
            words = shlex.split(line)[1:]
            main.parser_of(words[:1]).parse_args(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_say_what_the_code_does(page: Path) -> None:
    assert with_tables(page.read_text()) == page.read_text(), "run `make readme`"


@pytest.mark.parametrize("name", tables())
def test_every_table_stands_on_one_page(name: str) -> None:
    assert sum(page.read_text().count(mark) for page in PAGES for mark in marks(name)) == 2


@pytest.mark.slow
def test_the_picture_of_the_readme_shows_what_the_bundled_weights_find() -> None:
    shown = np.asarray(Image.open(readme_picture.PICTURE), np.int16)
    made = np.asarray(readme_picture.picture(), np.int16)
    other = np.abs(shown - made).max(axis=2) > 60
    assert other.sum() < 50, "run `make readme`"  # JPEG: 8 pixels; an outline of the weights before: 2,830


def test_the_readme_is_short_and_begins_with_both_commands() -> None:
    lines = README.read_text().splitlines()
    assert len(lines) <= 150
    first = "\n".join(lines[:30])
    assert "make serve" in first
    assert "make test" in first


def test_the_readme_leads_to_every_page() -> None:
    linked = {(ROOT / found["path"]).resolve() for found in LINK.finditer(README.read_text()) if found["path"]}
    assert set(PAGES) - {README} - linked == set()


def prose(page: Path) -> str:
    """Return a page without its blocks of code, whose text may look like links and headings."""
    return BLOCK.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    broken = []
    for found in LINK.finditer(prose(page)):
        target = (page.parent / found["path"]).resolve() if found["path"] else page
        if not target.exists() or (found["anchor"] and found["anchor"] not in anchors(target)):
            broken.append(found[0])
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_of_code_are_defined_in_the_files_they_link_to(page: Path) -> None:
    missing = []
    for found in DEFINED.finditer(prose(page)):
        source = page.parent / found["path"]
        name = found["name"].rpartition(".")[2]
        defined = rf"^\s*(?:async def|def|class|rpc|message|service|enum) {name}\b|^{name}\b"
        if (
            source.exists()
            and found["name"] != source.name
            and not re.search(defined, source.read_text(), re.MULTILINE)
        ):
            missing.append(found[0])
    assert missing == []


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set()
    for page in PAGES:
        named |= set(re.findall(r"(?:^|`|&& )make ([a-z-]+)", page.read_text(), flags=re.MULTILINE))
    assert "serve" in named
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_a_page_names_exists(page: Path) -> None:
    assert [name for name in NAMED.findall(page.read_text()) if not (ROOT / name).exists()] == []
