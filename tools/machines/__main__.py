"""``make machines-check`` (an hour or more): the two commands of the documentation on new machines, as a table.

Each machine is a Debian with Python, git, curl and make, on which a user without root runs ``make serve`` until it
answers with a mask, and then ``make test``. It needs root, debootstrap and a network; a second run keeps Debian and
what pip could cache, in ``build/machines``. What is not committed is not checked.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.machines import debian
from tools.machines.commands import SERVE, TEST, TEST_IN_CI, tests
from tools.machines.machine import ITS_ROOT, Machine, Outcome
from tools.machines.variants import VARIANTS

HEAD = "| machine | Python | `make serve` | `make test` |\n|---|---|---|---|"
WITHOUT_VENV = "dpkg --remove --force-depends $(dpkg-query -W -f '${Package} ' 'python3*-venv')"
VERSION = "import platform; print(platform.python_version())"


def main() -> int:
    """Print the table, a row as soon as it is known; return 1 if anything failed."""
    arguments = parsed()
    if os.geteuid() or not shutil.which("debootstrap"):
        sys.exit("machines: this needs root and debootstrap; install debootstrap and run it as root")
    faults: list[str] = []
    print(HEAD, flush=True)
    with beside(arguments.beside):
        for suite in arguments.only or debian.SUITES:
            check(suite, arguments, faults)
    print("\n".join(["", *faults]), flush=True)
    return bool(faults)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools.machines", description=__doc__)
    parser.add_argument("--only", action="append", choices=debian.SUITES, help="a suite of Debian; may be repeated")
    parser.add_argument("--again", type=int, default=1, metavar="N", help="run `make test` N times")
    parser.add_argument("--beside", type=int, default=0, metavar="N", help="keep N processes computing meanwhile")
    parser.add_argument("--variants", action="store_true", help="also serve on unusual machines of the first suite")
    return parser.parse_args()


@contextmanager
def beside(number: int) -> Iterator[None]:
    """Keep processes busy inside the block."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


@contextmanager
def changes() -> Iterator[Path]:
    """Yield a folder for what a machine changes: some GB."""
    folder = Path(tempfile.mkdtemp(prefix="changes-", dir=debian.FOLDER))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def check(suite: str, arguments: argparse.Namespace, faults: list[str]) -> None:
    """Print the rows of one suite."""
    root, name = debian.prepare(suite), debian.SUITES[suite]
    python = subprocess.check_output(["chroot", root, "python3", "-c", VERSION], text=True).strip()

    def row(machine: str, served: str, tested: str = "") -> None:
        print(f"| {machine} | {python} | {served} | {tested} |", flush=True)

    with changes() as folder:
        row(f"{name} without python3-venv", refused(Machine((root,), folder, f"{suite}-without-venv"), faults))
    with changes() as folder:
        served = Machine((root,), folder, f"{suite}-serve").run(SERVE)
        row(name, mask(served, faults))
        if served.code:
            return
        if arguments.variants:
            for variant in VARIANTS:
                row(f"{name}, {variant}", mask(unusual(variant, suite, root, folder), faults))
        for number in range(arguments.again):
            tested = Machine((root,), folder, f"{suite}-test-{number + 1}").run(TEST)
            row(name, "", counted(tested, faults))
        skips_fail_in_ci(Machine((root,), folder, f"{suite}-ci"), faults)


def unusual(variant: str, suite: str, root: Path, installed: Path) -> Outcome:
    """Serve on a machine that is unusual in one way; what was installed for others stays as it is."""
    how = VARIANTS[variant]
    layers = (root,) if how.installs else (root, installed / "upper")
    with changes() as folder:
        return how.run(Machine(layers, folder, f"{suite}-{variant.replace(' ', '-')}"))


def refused(machine: Machine, faults: list[str]) -> str:
    """Return what ``make serve`` says where Debian's package with venv is missing: one line, and nothing is left."""
    removed = machine.run(WITHOUT_VENV, who=ITS_ROOT)
    if removed.code:
        faults.append(f"{machine.name}: {removed.log}")
    done = machine.run(SERVE)
    (said, *others) = done.log.splitlines()
    if not (done.code and said.startswith("pranet: ") and len(others) == 1 and others[0].startswith("make: ***")):
        faults.append(f"{machine.name}: {done.log}")
    return f"refuses: `{said}`"


def mask(served: Outcome, faults: list[str]) -> str:
    """Return how long it took to the mask."""
    if served.code:
        faults.append(f"{served.name}: {served.log[-2000:]}")
        return "**fails**"
    return f"a mask after {took(served)}"


def counted(tested: Outcome, faults: list[str]) -> str:
    """Return how many tests passed, and print why others were skipped."""
    result = tests(tested)
    faults += [f"{tested.name}: {each}" for each in result.wrong]
    if tested.code and not result.wrong:
        faults.append(f"{tested.name}: {tested.log[-2000:]}")
    for reason, number in sorted(result.reasons.items()):
        print(f"  {number} skipped: {reason}", file=sys.stderr)
    wrong = f"**{len(result.wrong)} failed**, " if tested.code else ""
    return f"{wrong}{result.passed} passed, {result.skipped} skipped; {took(tested)}"


def skips_fail_in_ci(machine: Machine, faults: list[str]) -> None:
    """Find fault if a test that lacks its program is skipped under CI."""
    done = machine.run(TEST_IN_CI)
    if not done.code or "skipped under CI: no nginx" not in done.log:
        faults.append(f"{done.name}: {done.log[-2000:]}")


def took(outcome: Outcome) -> str:
    return f"{outcome.wall_seconds:.0f} s, {outcome.cpu_seconds:.0f} s of CPU"


if __name__ == "__main__":
    sys.exit(main())
