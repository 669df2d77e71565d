"""``make systemd-check`` (minutes): follows docs/operations.md under a real systemd, and tests what it leaves.

The systemd runs in namespaces of its own, on a copy-on-write view of this machine's files, so nothing of it stays.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.pictures import ROOT, SAMPLES, annotation, dice, mask_of

BUNDLE = ROOT / "build" / "pranet-bundle"
INIT = Path("/lib/systemd/systemd")
RECIPE = re.compile(r"<!-- not run: it needs root and systemd -->\n```bash\n(.*?)```", re.DOTALL)
SERVICE = "https://127.0.0.1:8000"
BOOT_SECONDS, READY_SECONDS = 30, 120
BOOT = """
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=/,upperdir=$0/upper,workdir=$0/work" "$0/root" && cd "$0/root"
mount -t proc proc proc && mount -t sysfs -o ro sysfs sys && mount --rbind /sys/fs/cgroup sys/fs/cgroup
for place in run tmp dev; do mount -t tmpfs tmpfs "$place"; done
mount --bind "$1" srv
for device in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 "dev/${device%:*}" c 1 "${device#*:}"; done
mkdir dev/shm && ln -s /proc/self/fd dev/fd && rm -rf opt/pranet etc/pranet etc/pranet.env
pivot_root . mnt && umount -l /mnt
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin "$2" --system --unit=basic.target
"""
CERTIFICATE = """openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 30 -subj /CN=localhost \
  -addext subjectAltName=DNS:localhost,IP:127.0.0.1"""
RENEWED = f"cd && {CERTIFICATE} && install -m 640 -g pranet-secrets cert.pem key.pem /etc/pranet/"

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not INIT.exists(), reason="no systemd"),
]


class Machine:
    """A systemd with processes and files of its own, but the network of this machine."""

    def __init__(self, folder: Path) -> None:
        for name in ("upper", "work", "root"):
            (folder / name).mkdir()
        spaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--cgroup", "--uts", "--ipc"]
        self._boot = subprocess.Popen([*spaces, "sh", "-ec", BOOT, str(folder), str(BUNDLE), str(INIT)])

    def boot(self) -> None:
        """Wait until the machine runs."""
        wait(lambda: self.code("systemctl is-system-running") == 0, BOOT_SECONDS)

    def _inside(self, script: str) -> list[str]:
        children = Path(f"/proc/{self._boot.pid}/task/{self._boot.pid}/children").read_text().split()
        enter = ["nsenter", f"--target={children[0]}", "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--root"]
        return [*enter, "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "sh", "-ec", script]

    def code(self, script: str) -> int:
        """Return the exit status of a script, 1 if the machine does not run yet."""
        try:
            return subprocess.run(self._inside(script), capture_output=True).returncode
        except IndexError:
            return 1

    def run(self, script: str) -> str:
        """Run a script and return what it printed."""
        return subprocess.run(self._inside(script), check=True, stdout=subprocess.PIPE, text=True).stdout

    def stop(self) -> None:
        self._boot.send_signal(signal.SIGKILL)
        self._boot.wait()


def wait(what: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.2)


def post(token: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {token}", "content-type": "image/jpeg"}
    return httpx.post(f"{SERVICE}/segment", content=SAMPLES[0].read_bytes(), headers=headers, verify=False)


def ready() -> bool:
    try:
        return httpx.get(f"{SERVICE}/readyz", verify=False).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    folder = Path(tempfile.mkdtemp(prefix="pranet-systemd-", dir=ROOT / "build"))
    machine = Machine(folder)
    try:
        machine.boot()
        machine.run(f"cp -r /srv /root/bundle && cd /root/bundle && ./install.sh && {CERTIFICATE}")
        yield machine
    finally:
        machine.stop()
        shutil.rmtree(folder)


def test_the_recipe_leaves_a_service_with_tokens_and_tls_that_outlives_what_happens(machine: Machine) -> None:
    recipe = RECIPE.search((ROOT / "docs" / "operations.md").read_text())
    assert recipe
    tokens = re.findall(r"^pranet_\S+$", machine.run(f"cd /root/bundle\n{recipe[1]}"), re.MULTILINE)
    assert len(tokens) == 2
    wait(ready, READY_SECONDS)

    segmented, anonymous = post(tokens[0]), post("none")
    assert (segmented.status_code, anonymous.status_code) == (200, 401)
    assert dice(mask_of(segmented.content), annotation(SAMPLES[0])) > 0.9
    main_pid = "systemctl show -p MainPID --value pranet"
    assert machine.run(f"stat -c %u /proc/$({main_pid})") != "0\n"

    machine.run("/opt/pranet/bin/pranet tokens remove endoscopy-room-1 --api-tokens-file /etc/pranet/tokens")
    wait(lambda: post(tokens[0]).status_code == 401, 1)
    assert post(tokens[1]).status_code == 200

    served = "openssl s_client -connect 127.0.0.1:8000 < /dev/null 2> /dev/null | openssl x509 -noout -fingerprint"
    before = machine.run(served)
    machine.run(f"{RENEWED} && systemctl reload pranet")
    wait(lambda: machine.run(served) != before, READY_SECONDS)

    machine.run("systemctl kill --signal=KILL pranet")
    wait(lambda: not ready(), READY_SECONDS)
    wait(ready, READY_SECONDS)
    assert post(tokens[1]).status_code == 200

    machine.run("systemctl stop pranet")
    assert machine.run("systemctl show -p Result --value pranet") == "success\n"
