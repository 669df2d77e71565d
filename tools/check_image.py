"""``make image-check`` (minutes): builds the image, and tests that it serves as an ordinary user on a read-only root.

It needs neither an image registry nor a container engine. The base image is a Debian made here, and the image runs in a
chroot with the user, environment and commands from its configuration.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image as Pictures

from tests.support import processes
from tests.support.pictures import ROOT, SAMPLES, annotation, dice, encoded, mask_of
from tests.support.processes import Server

WHEELS = ROOT / "build" / "pranet-bundle" / "wheels"
FOLDER = ROOT / "build" / "image-check"
BASE, IMAGE = "localhost/pranet-check-base", "localhost/pranet-check"
SUITES = {(3, 11): "bookworm", (3, 13): "trixie"}  # of Debian, by the Python that the wheels are for
# Read-only from the root down, with the kernel's own file systems, and without a right to become anybody else.
ENTER = """
mount --bind "$0" "$0" && mount -t proc proc "$0/proc" && mount --bind /dev "$0/dev"
for place in "$0" "$0/dev"; do mount -o remount,bind,ro "$place"; done
exec setpriv --no-new-privs "$@"
"""
ASKED = """
import json, os, shutil
print(json.dumps({
    "read-only": bool(os.statvfs("/").f_flag & os.ST_RDONLY) and bool(os.statvfs("/tmp").f_flag & os.ST_RDONLY),
    "user": [os.getuid(), os.getgid()],
    "tools": [tool for tool in ("cc", "gcc", "make", "git", "pip") if shutil.which(tool)],
    "rights": [line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "NoNewPrivs"))],
}))
"""

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not (shutil.which("buildah") and shutil.which("debootstrap")), reason="no buildah, debootstrap"),
]


@dataclass(frozen=True)
class Image:
    """The unpacked files of an image, and its configuration."""

    root: str
    config: dict[str, Any]

    def command(self, *words: str) -> list[str]:
        """Return the command that runs ``words`` in the image."""
        environment = ["/usr/bin/env", "-i", *self.config["Env"]]
        inside = ["chroot", f"--userspec={self.config['User']}", self.root, *environment, *words]
        return ["unshare", "--mount", "sh", "-ec", ENTER, self.root, *inside]


def buildah(*arguments: object) -> str:
    command = ["buildah", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def make_base() -> None:
    """Make an image with only Debian and a Python, under the same path as in the published images."""
    root = FOLDER / "base"
    if not (root / "usr/local/bin/python").is_symlink():
        shutil.rmtree(root, ignore_errors=True)
        suite = SUITES[sys.version_info[:2]]
        packages = "--include=python3,python3-venv,ca-certificates"
        subprocess.run(["debootstrap", "--variant=minbase", packages, suite, root], check=True)
        (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    container = buildah("from", "scratch")
    buildah("copy", "--quiet", container, root, "/")
    buildah("config", "--env", "PATH=/usr/local/bin:/usr/bin:/bin", container)
    buildah("commit", "--quiet", container, BASE)
    buildah("rm", container)


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """Build the image from the bundle's wheels."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    make_base()
    tools = FOLDER / "tools"  # that the bundle does not need, as its own wheel is built already
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", tools]
    builds = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    subprocess.run([*download, *builds], check=True)
    subprocess.run([*download, "--no-deps", "--requirement", ROOT / "requirements" / "audit.txt"], check=True)
    (FOLDER / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels /packages\n")
    volumes = {FOLDER / "pip.conf": "/etc/pip.conf", WHEELS: "/wheels", tools: "/packages"}
    flags = [word for outside, inside in volumes.items() for word in ("--volume", f"{outside}:{inside}:ro")]
    build = ["--isolation=chroot", "--format=docker", "--pull-never", f"--build-arg=BASE={BASE}", f"--tag={IMAGE}"]
    buildah("build", *build, *flags, "--file", ROOT / "docker" / "Dockerfile", ROOT)
    container = buildah("from", IMAGE)
    config = json.loads(buildah("inspect", "--type=image", IMAGE))["Docker"]["config"]
    try:
        yield Image(buildah("mount", container), config)
    finally:
        buildah("rm", container)
        buildah("rmi", IMAGE, BASE)


@pytest.fixture(scope="module")
def server(image: Image) -> Iterator[Server]:
    with processes.server("--host", "127.0.0.1", program=image.command(*image.config["Entrypoint"])) as server:
        yield server


def test_it_runs_as_nobody_special_on_a_read_only_root_without_tools(image: Image) -> None:
    done = subprocess.run(image.command("python", "-c", ASKED), check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == {
        "read-only": True,
        "user": [10001, 10001],
        "tools": [],
        "rights": ["0000000000000000", "1"],
    }


def test_it_has_the_compiled_part(image: Image) -> None:
    assert list(Path(image.root).glob("opt/pranet/lib/python3.*/site-packages/model/_resize*.so"))


def test_it_serves_a_frame(server: Server) -> None:
    answer = httpx.post(f"{server.url}/segment", content=SAMPLES[0].read_bytes(), timeout=60, trust_env=False)
    assert dice(mask_of(answer.raise_for_status().content), annotation(SAMPLES[0])) > 0.8


def test_it_takes_a_large_upload_though_there_is_nowhere_to_put_it_down(server: Server) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1500, 3), dtype=np.uint8)
    form = {"file": encoded(Pictures.fromarray(noise))}
    answer = httpx.post(f"{server.url}/segment", files=form, timeout=60, trust_env=False)
    assert mask_of(answer.raise_for_status().content).shape == (1000, 1500)


def test_its_health_check_tells_a_server_from_none(server: Server, image: Image) -> None:
    kind, *check = image.config["Healthcheck"]["Test"]
    assert kind == "CMD"
    port = server.url.rpartition(":")[2]
    healthy, sick = (
        subprocess.run(image.command("env", f"PRANET_PORT={number}", *check), check=False).returncode
        for number in (port, "1")
    )
    assert (healthy, sick) == (0, 1)


def test_it_lists_what_it_holds_with_licences(image: Image) -> None:
    folder = Path(image.root) / "opt/pranet/share/doc/pranet"
    listed = {each["name"]: each for each in json.loads((folder / "pranet.cdx.json").read_text())["components"]}
    served = (ROOT / "requirements" / "image.txt").read_text() + (ROOT / "requirements" / "torch.txt").read_text()
    assert {"torch", "openvino", "pranet-service", "uvicorn"} <= listed.keys()
    assert all(f"{name}=={listed[name]['version'].partition('+')[0]}" in served for name in ("torch", "openvino"))
    assert not {"pip-audit", "cyclonedx-bom", "pytest"} & listed.keys()
    rows = (folder / "licenses.md").read_text()
    assert all(
        re.search(rf"^\| {name} +\| \S+ +\| [^|]*Apache", rows, re.MULTILINE) for name in ("openvino", "pranet-service")
    )
