"""Measures the memory of ``pranet serve`` by the number of its processes, after some frames and after some reloads.

python -m tools.measure.memory [FLAGS of pranet serve]   prints a table; five minutes
    --reloads 0 --against ../earlier                     begins with the service of another checkout

A page that several processes share counts for each of them in part (PSS, proc_pid_smaps(5)).
"""

import argparse
import os
import signal
import tempfile
import time
from pathlib import Path

import httpx

from service.settings import Settings
from tests.support.pictures import SAMPLES
from tests.support.processes import Server, children, server
from tools.measure import checkouts

FRAMES = 12  # for each process
RELOADS = 8
RELOAD_SECONDS = 15.0  # for one, and until free memory is given back
MEBIBYTE_KB = 1024


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--at-most", type=int, default=2, metavar="N", help="processes (default: 2)")
    parser.add_argument("--reloads", type=int, default=RELOADS, metavar="N", help=f"default: {RELOADS}")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="first measure its one process")
    arguments, flags = parser.parse_known_args()
    print(
        "| processes | MiB each, the parent last | CPU s to ready | MiB each, after reloads |\n|---|---|---|---|",
        flush=True,
    )
    if arguments.against:
        with server(*flags, program=checkouts.program(arguments.against)) as running:
            seconds = _cpu_seconds(running)
            _use(running, 1)
            print(f"| 1, other checkout | {_memory(running)} | {seconds:.1f} | |", flush=True)
    for number in range(1, arguments.at_most + 1):
        with tempfile.TemporaryDirectory() as folder:
            weights = Path(folder) / "weights.safetensors"
            weights.write_bytes(Settings().weights_path.read_bytes())
            with server("--weights", weights, "--processes", number, *flags) as running:
                seconds = _cpu_seconds(running)
                _use(running, number)
                before = _memory(running)
                for _ in range(arguments.reloads):
                    running.process.send_signal(signal.SIGHUP)
                    time.sleep(RELOAD_SECONDS)
                print(f"| {number} | {before} | {seconds:.1f} | {_memory(running)} |", flush=True)
    return 0


def _use(running: Server, number: int) -> None:
    """Send frames over connections of their own, which the kernel spreads over the processes."""
    for sample in SAMPLES * FRAMES * number:
        httpx.post(f"{running.url}/segment", content=sample.read_bytes(), timeout=60, trust_env=False)


def _family(running: Server) -> list[int]:
    return [*children(running), running.process.pid]


def _cpu_seconds(running: Server) -> float:
    return sum(map(_seconds, _family(running)))


def _memory(running: Server) -> str:
    return ", ".join(f"{_pss(each):.0f}" for each in _family(running))


def _pss(process: int) -> float:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / MEBIBYTE_KB


def _seconds(process: int) -> float:
    """Return the processor time of a process so far, user and system (proc_pid_stat(5))."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    raise SystemExit(main())
