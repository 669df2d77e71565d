"""Machines that are unusual in one way each; ``make serve`` must work on all of them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tools.machines.commands import SERVE
from tools.machines.machine import ITS_ROOT, Machine, Outcome

CHECKOUT = "home/visitor/pranet"
NOEXEC = "mkdir -m 1777 srv/tmp && mount --bind srv/tmp srv/tmp && mount -o remount,bind,noexec srv/tmp"
READ_ONLY = f"mount --bind {CHECKOUT} {CHECKOUT} && mount -o remount,bind,ro {CHECKOUT}"
SHARED_CACHE = "mkdir -m 1777 srv/cache && chmod 755 home/visitor"
TWO_USERS = "\n".join(
    f"PRANET_CACHE_DIR=/srv/cache HOME=/home/{name} setpriv --reuid={name} --regid={name} --clear-groups "
    'sh -uc "$SERVE" || exit 1'
    for name in ("visitor", "neighbour")
)
GIB = 2**30


@dataclass(frozen=True)
class Variant:
    """One way to be unusual; the others build on a machine on which the service is installed already."""

    run: Callable[[Machine], Outcome]
    installs: bool = False


def with_one_gib(installed: Machine) -> Outcome:
    """Serve in a group of the kernel's that may have only so much memory."""
    first, second = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    parent, limit = (first, "memory.limit_in_bytes") if first.exists() else (second, "memory.max")
    group = parent / "pranet-machines"
    group.mkdir(exist_ok=True)
    try:
        (group / limit).write_text(str(GIB))
        enter = f'echo $$ > {group}/cgroup.procs && exec "$@"'
        return installed.limited("sh", "-ec", enter, "sh").run(SERVE)
    finally:
        group.rmdir()


VARIANTS = {
    "no HOME": Variant(lambda bare: bare.run(SERVE, home=None), installs=True),
    "a path with spaces and accents": Variant(
        lambda bare: bare.run(f"CHECKOUT='/home/visitor/Études de coloscopie/pranet'\n{SERVE}"), installs=True
    ),
    "umask 077": Variant(lambda bare: bare.run(f"umask 077\n{SERVE}"), installs=True),
    "TMPDIR noexec": Variant(lambda bare: bare.run(f"export TMPDIR=/srv/tmp\n{SERVE}", prepare=NOEXEC), installs=True),
    "a read-only clone": Variant(lambda installed: installed.run(SERVE, prepare=READ_ONLY)),
    "two users with one cache": Variant(
        lambda installed: installed.run(
            f"SERVE=$(cat << 'SCRIPT'\n{SERVE}SCRIPT\n)\n{TWO_USERS}", prepare=SHARED_CACHE, who=ITS_ROOT
        )
    ),
    "one core": Variant(lambda installed: installed.limited("taskset", "--cpu-list", "0").run(SERVE)),
    "1 GiB of memory": Variant(with_one_gib),
}
