"""``make bundle-check`` (minutes): tests that the bundle installs and serves without a network."""

import os
import shutil
import socket
import stat
import subprocess
import tarfile
from pathlib import Path

import httpx
import pytest

from tests.support import processes
from tests.support.pictures import ROOT, SAMPLES, annotation, dice, mask_of

BUNDLE = ROOT / "dist" / "pranet-bundle.tar"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    with tarfile.open(BUNDLE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "pranet-bundle"


def test_there_is_no_network_here() -> None:
    assert [name for _, name in socket.if_nameindex()] == ["lo"]


def install(unpacked: Path, folder: Path) -> None:
    """Install as root of a hardened machine does, whose files are its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    subprocess.run(
        ["sh", "-c", 'umask 077; exec "$0" "$1"', unpacked / "install.sh", folder], env=environment, check=True
    )


@pytest.fixture(scope="module")
def installed(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("opt") / "pranet"
    install(unpacked, folder)
    return folder


def test_it_installs_and_serves_a_frame(installed: Path) -> None:
    with processes.server(program=[installed / "bin" / "pranet"]) as server:
        sample = SAMPLES[0]
        answer = httpx.post(f"{server.url}/segment", content=sample.read_bytes(), timeout=60, trust_env=False)
    assert dice(mask_of(answer.raise_for_status().content), annotation(sample)) > 0.8


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler to build the bundle with")
def test_it_has_the_compiled_part(installed: Path) -> None:
    assert list(installed.glob("lib/python3.*/site-packages/model/_resize*.so"))


def test_another_user_may_run_what_is_installed(installed: Path) -> None:
    closed = [path for path in (installed, *installed.rglob("*")) if not path.lstat().st_mode & stat.S_IROTH]
    assert closed == []


def test_a_bundle_replaces_the_service_of_an_earlier_one(unpacked: Path, installed: Path) -> None:
    (module,) = installed.glob("lib/python3.*/site-packages/service/app.py")
    now = module.read_text()
    module.write_text("raise SystemExit('the earlier one')")
    install(unpacked, installed)
    assert module.read_text() == now


def test_a_damaged_bundle_installs_nothing(unpacked: Path, tmp_path: Path) -> None:
    wheel = next((unpacked / "wheels").glob("pranet_service-*.whl"))
    whole = wheel.read_bytes()
    wheel.write_bytes(whole[:-1])
    done = subprocess.run([unpacked / "install.sh", tmp_path / "pranet"], capture_output=True, text=True, check=False)
    wheel.write_bytes(whole)
    assert done.returncode != 0
    assert f"{wheel.name}: FAILED" in done.stdout
    assert not (tmp_path / "pranet").exists()


def test_another_python_is_refused_with_advice(unpacked: Path, tmp_path: Path) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\necho 3.7\n")
    (tmp_path / "python").chmod(0o755)
    environment = {**os.environ, "PYTHON": str(tmp_path / "python")}
    command = [unpacked / "install.sh", tmp_path / "pranet"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "PYTHON=python3" in done.stderr
