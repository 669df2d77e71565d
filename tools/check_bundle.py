"""``make bundle-check`` (minutes): tests that the bundle installs and serves without a network."""

import os
import socket
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


def test_it_installs_and_serves_a_frame(unpacked: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    subprocess.run([unpacked / "install.sh", tmp_path / "pranet"], env=environment, check=True)
    with processes.server(program=[tmp_path / "pranet" / "bin" / "pranet"]) as server:
        sample = SAMPLES[0]
        answer = httpx.post(f"{server.url}/segment", content=sample.read_bytes(), timeout=60, trust_env=False)
    assert dice(mask_of(answer.raise_for_status().content), annotation(sample)) > 0.8


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
