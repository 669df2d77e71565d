"""The package ``pranet_client`` stands alone: it installs, imports and works without the service."""

import ast
import asyncio
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import pranet_client
from tests.support.pictures import ROOT
from tests.support.serving import serving

CLIENT = ROOT / "client"
PACKAGE = CLIENT / "pranet_client"
EXAMPLES = re.findall(r"```python\n(.*?)```", (CLIENT / "README.md").read_text(), flags=re.DOTALL)
DISTRIBUTIONS = {
    "cvat_sdk": "cvat-sdk",
    "google": "protobuf",
    "grpc": "grpcio",
    "httpx": "httpx",
    "numpy": "numpy",
    "PIL": "pillow",
}  # by the name that is imported
FOREIGN = ("cv2", "model", "numpy", "openvino", "service", "torch")
IMPORT_ALL = f"""
import sys
from pranet_client import *
print(Client, StreamConfig, [name for name in {FOREIGN} if name in sys.modules])
"""


def run(*command: object, folder: Path, path: Path = CLIENT) -> str:
    """Run Python where only ``path`` is added to what is installed; return what it printed."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the client into a folder of its own, from a copy, since a build writes into its source."""
    folder = tmp_path_factory.mktemp("client")
    shutil.copytree(CLIENT, folder / "source", ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    offline = ("--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
    run("-m", "pip", "install", "--quiet", *offline, "--target", folder / "site", folder / "source", folder=folder)
    return folder / "site"


def test_it_imports_beside_a_model_and_a_service_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("MINE = 'my model'")
    (tmp_path / "service.py").write_text("MINE = 'my service'")
    (tmp_path / "script.py").write_text("import model, service\nfrom pranet_client import *\nprint(Client, model.MINE)")
    assert run("script.py", folder=tmp_path) == f"{pranet_client.Client} my model\n"


def test_it_imports_neither_the_service_nor_its_libraries(tmp_path: Path) -> None:
    assert run("-c", IMPORT_ALL, folder=tmp_path).endswith(" []\n")


def test_the_service_shares_its_modules_without_loading_the_http_client(tmp_path: Path) -> None:
    code = "import sys, pranet_client.errors, pranet_client.pictures; print('httpx' in sys.modules)"
    assert run("-c", code, folder=tmp_path) == "False\n"


def test_every_public_name_exists_and_another_does_not() -> None:
    assert {name for name in pranet_client.__all__ if getattr(pranet_client, name) is None} == set()
    with pytest.raises(ImportError, match="Clint"):
        from pranet_client import Clint  # noqa: F401


def test_it_declares_what_it_imports() -> None:
    imported: set[str] = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imported |= {name.partition(".")[0] for name in names}
    needed = {DISTRIBUTIONS[name] for name in imported - sys.stdlib_module_names - {"pranet_client"}}
    extras = tomllib.loads((CLIENT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    declared = {Requirement(each).name for extra in extras.values() for each in extra}
    assert {each.name for each in requirements(CLIENT)} | declared == needed


@pytest.mark.parametrize("project", [ROOT, CLIENT], ids=["service", "client"])
def test_its_lowest_versions_accept_the_generated_code(project: Path) -> None:
    generated = PACKAGE / "pb" / "pranet" / "v1"
    made_by = {
        "protobuf": found(r"Protobuf Python Version: ([\d.]+)", generated / "segmentation_pb2.py"),
        "grpcio": found(r"GRPC_GENERATED_VERSION = '([\d.]+)'", generated / "segmentation_pb2_grpc.py"),
    }
    lowest = {each.name: str(each.specifier) for each in requirements(project) if each.name in made_by}
    assert lowest == {name: f">={version}" for name, version in made_by.items()}


def requirements(project: Path) -> list[Requirement]:
    declared = tomllib.loads((project / "pyproject.toml").read_text())["project"]["dependencies"]
    return [Requirement(each) for each in declared]


def found(pattern: str, file: Path) -> str:
    match = re.search(pattern, file.read_text())
    assert match
    return match[1]


def test_it_installs_with_its_types_and_its_licence(installed: Path, tmp_path: Path) -> None:
    where = run("-c", "import pranet_client; print(pranet_client.__file__)", folder=tmp_path, path=installed)
    assert where == f"{installed / 'pranet_client' / '__init__.py'}\n"
    assert (installed / "pranet_client" / "py.typed").is_file()
    assert (installed / "pranet_client/pb/pranet/v1/segmentation_pb2.pyi").is_file()
    assert list(installed.glob("pranet_client-*.dist-info/licenses/LICENSE"))


@pytest.mark.parametrize("example", EXAMPLES)
async def test_its_examples_work_where_only_it_is_installed(example: str, installed: Path, tmp_path: Path) -> None:
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "samples").symlink_to(ROOT / "service" / "samples")
    async with serving() as it:
        here = example.replace("127.0.0.1:8000", f"127.0.0.1:{it.port}").replace(
            "127.0.0.1:8001", f"127.0.0.1:{it.grpc_port}"
        )
        said = await asyncio.to_thread(run, "-c", here, folder=tmp_path, path=installed)
    assert said.count("answered") == 3 if "stream" in example else (tmp_path / "mask.png").is_file()
