"""A new Debian with an ordinary user, as somebody finds it who has just got an account there."""

import configparser
import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "machines"
BUNDLE = "/srv/pranet.bundle"  # in each root, with the commit that is checked
PACKAGES = ("ca-certificates", "curl", "git", "make", "python3", "python3-venv")
SUITES = {"bookworm": "Debian 12", "trixie": "Debian 13", "sid": "Debian sid"}
USER, UID = "visitor", 1000
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
FROM_THIS_NETWORK = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout")  # of pip's configuration


def prepare(suite: str) -> Path:
    """Return the root of a suite with the commit of this checkout; Debian itself is installed only once."""
    root = FOLDER / suite / "root"
    if not root.exists():
        unfinished = root.with_name("unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        included = f"--include={','.join(PACKAGES)}"
        with (unfinished.parent / "debootstrap.log").open("w") as log:
            command = ["debootstrap", "--variant=minbase", included, suite, unfinished, mirror()]
            subprocess.run(command, stdout=log, stderr=log, check=True)
        for name in (USER, "neighbour"):
            subprocess.run(["chroot", unfinished, "useradd", "--create-home", name], check=True)
        unfinished.rename(root)
    adapt(root)
    subprocess.run(["git", "bundle", "create", "--quiet", f"{root}{BUNDLE}", "HEAD"], cwd=ROOT, check=True)
    return root


def mirror() -> str:
    """Return the archive that this machine's apt installs Debian from."""
    fields = ["--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian", "Component: main"]
    done = subprocess.run(["apt-get", "indextargets", *fields], check=True, capture_output=True, text=True)
    archives = [each for each in done.stdout.split() if "security" not in each]
    if not archives:
        raise SystemExit("machines: apt knows no archive of Debian; run apt-get update")
    return archives[0]


def adapt(root: Path) -> None:
    """Give a root what it takes to reach packages from this network: names, authorities, and pip's indexes."""
    for name in ("resolv.conf", "hosts"):
        shutil.copy(f"/etc/{name}", root / "etc" / name)
    shutil.copy(AUTHORITIES, f"{root}{AUTHORITIES}")
    (root / "etc" / "pip.conf").write_text(pip_configuration())


def pip_configuration() -> str:
    """Return pip's configuration of this machine, less what lies on its disk."""
    lines = ["[global]", f"cert = {AUTHORITIES}"]
    for file in ("/etc/xdg/pip/pip.conf", "/etc/pip.conf", os.path.expanduser("~/.config/pip/pip.conf")):
        found = configparser.RawConfigParser()
        found.read(file)
        for name in FROM_THIS_NETWORK:
            value = found.get("global", name, fallback="")
            if remote := [each for each in value.split() if not each.startswith(("file:", "/"))]:
                lines.append(f"{name} = {' '.join(remote)}")
    return "\n".join(lines) + "\n"
