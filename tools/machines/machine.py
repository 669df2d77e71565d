"""A run of a script on a machine of its own: a root with what it leaves thrown away, gone whenever its process is."""

import os
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path

from tools.machines.debian import FOLDER, UID

# $0 are the layers, $1 what changes go to, $2 pip's cache of all machines. All of it goes with the last process inside.
ENTER = """
mount --make-rprivate /
mkdir -p "$1/upper" "$1/work" "$1/root" "$2"
mount -t overlay overlay -o "lowerdir=$0,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mount -t proc proc proc
mount --rbind /dev dev
mount --rbind /sys sys && mount -o remount,bind,ro sys
mkdir -p srv/pip && mount --bind "$2" srv/pip && chown {uid}:{uid} srv/pip
{prepare}
exec chroot . setpriv {who} /usr/bin/env -i {variables} sh -uc "$3"
"""
ORDINARY = f"--reuid={UID} --regid={UID} --clear-groups --no-new-privs"
ITS_ROOT = "--reuid=0"


@dataclass(frozen=True)
class Outcome:
    """What a script did."""

    name: str
    code: int
    cpu_seconds: float
    wall_seconds: float
    log: str


@dataclass(frozen=True)
class Machine:
    """The folders that its files come from, the last on top, and a folder for what it changes."""

    layers: tuple[Path, ...]
    changes: Path
    name: str  # of its log
    limits: tuple[str, ...] = ()  # a command that runs it with less

    def limited(self, *limits: str) -> "Machine":
        """Return this machine with less of something, which a command takes away."""
        return replace(self, limits=limits)

    def run(
        self, script: str, *, prepare: str = "", home: str | None = "/home/visitor", who: str = ORDINARY
    ) -> Outcome:
        """Run a script; what it prints goes to a file that lasts, too."""
        variables = ["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "PIP_CACHE_DIR=/srv/pip"]
        variables += [f"HOME={home}"] if home else []
        enter = ENTER.format(uid=UID, prepare=prepare, who=who, variables=" ".join(variables))
        spaces = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
        below = ":".join(map(str, reversed(self.layers)))
        places = [below, self.changes, FOLDER / "pip"]
        log = FOLDER / f"{self.name}.log"
        began = time.monotonic()
        with log.open("w") as output:
            process = subprocess.Popen(
                [*self.limits, *spaces, "sh", "-euc", enter, *map(str, places), script],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        cpu = usage.ru_utime + usage.ru_stime
        return Outcome(self.name, process.returncode, cpu, time.monotonic() - began, log.read_text(errors="replace"))
