"""A newcomer finds the room: no folder holds more modules than one look takes in."""

import ast
import importlib
import importlib.util
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.pictures import ROOT
from tools.guards.data_path import DATA_PATH
from tools.guards.guard import Guard
from tools.guards.programs import PROGRAMS
from tools.guards.transports import AROUND

MOST = 15
GENERATED = "service/pb"
OWN = ("model", "service", "pranet_client", "tests", "tools")
TOOLS = sorted(
    path.relative_to(ROOT)
    for path in (ROOT / "tools").rglob("*.py")
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)


def folders() -> list[Path]:
    """Return every folder that has modules of its own, relative to the root."""
    names = ("service", "model", "tests", "tools")
    modules = [path.relative_to(ROOT) for name in names for path in (ROOT / name).rglob("*.py")]
    hidden = {path for path in modules if any(part.startswith(".") or part == "node_modules" for part in path.parts)}
    return sorted({path.parent for path in modules if path not in hidden and not path.is_relative_to(GENERATED)})


def modules_in(folder: Path) -> list[str]:
    return [path.name for path in (ROOT / folder).glob("*.py") if path.name != "__init__.py"]


@pytest.mark.parametrize("folder", folders(), ids=str)
def test_a_folder_holds_at_most_fifteen_modules(folder: Path) -> None:
    assert len(modules_in(folder)) <= MOST, "sort them into folders named after what they are about"


def test_no_test_imports_another() -> None:
    """What tests share is in tests/support."""
    tests = sorted((ROOT / "tests").rglob("test_*.py"))
    imports = [
        f"{path.relative_to(ROOT)}: {line}"
        for path in tests
        for line in path.read_text().splitlines()
        if line.startswith(("from tests.", "import tests.")) and not line.startswith("from tests.support")
    ]
    assert imports == []


def test_names_are_replaced_where_it_is_noticed_that_nothing_uses_them() -> None:
    """By the fixture ``patched``."""
    own = [path for path in (ROOT / "tests").rglob("*.py") if not any(part.startswith(".") for part in path.parts)]
    modules = {path: path.read_text() for path in own}
    found = {path.name for path, text in modules.items() if re.search(r"\.(setattr|delattr)\(", text)}
    assert found == {"patching.py"}


def imported(module: Path) -> Iterator[tuple[str, str]]:
    """Yield each module of this repository that a module imports from, with each name that it imports."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OWN:
            yield from ((str(node.module), alias.name) for alias in node.names)


@pytest.mark.parametrize("tool", TOOLS, ids=str)
def test_every_name_exists_that_a_tool_imports(tool: Path) -> None:
    """Most tools are run by hand, so that nothing else would notice."""
    with warnings.catch_warnings(action="ignore"):  # of libraries that only tools import
        missing = [
            (module, name)
            for module, name in imported(ROOT / tool)
            if not hasattr(importlib.import_module(module), name) and not importlib.util.find_spec(f"{module}.{name}")
        ]
    assert missing == []


@pytest.mark.parametrize("guard", [*DATA_PATH, *AROUND, *PROGRAMS], ids=lambda guard: guard.rules_out)
def test_every_guard_stands_in_its_file_once_and_has_its_test(guard: Guard) -> None:
    """``make guards-check`` takes long and is run by hand."""
    assert (ROOT / guard.file).read_text().count(guard.line) == 1
    file, _, name = guard.test.partition("::")
    assert f"def {name}(" in (ROOT / "tests" / file).read_text()


def shadowed(module: Path) -> Iterator[tuple[str, str]]:
    """Yield each class of a module with each name in its annotations that means something else inside the class."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ClassDef):
            fields = [
                each for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
            ]
            own = {each.target.id for each in fields if each.value is not None and isinstance(each.target, ast.Name)}
            used = {name.id for each in fields for name in ast.walk(each.annotation) if isinstance(name, ast.Name)}
            yield from ((node.name, name) for name in own & used)


def test_annotations_of_a_class_mean_the_same_inside_it() -> None:
    """From Python 3.14 on, they are evaluated late, among the attributes of the class (PEP 649)."""
    modules = [path for folder in ("model", "service", "client") for path in (ROOT / folder).rglob("*.py")]
    assert len(modules) > 100
    assert [(module.name, *each) for module in modules for each in shadowed(module)] == []
