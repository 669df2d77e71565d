"""``pranet bench overhead``: what the service costs around the network, measured in front of an engine that costs none.

The server runs in a process of its own on a given number of cores, and the client on the others if there are any. With
``--against``, the server of another checkout takes turns with this one, in the same environment. It needs Linux.
"""

import argparse
import asyncio
import contextlib
import itertools
import math
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvloop
from prometheus_client.parser import text_string_to_metric_families

from service.commands.bench.errors import BenchError
from service.commands.bench.load import watched
from service.commands.bench.measure import Row, summarise
from service.commands.bench.overhead_loads import LOADS, ONE_BY_ONE, Addresses, Pace

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = Path(__file__).with_name("free_engine.py")
START_SECONDS, STOP_SECONDS = 60.0, 20.0
SERVER_PORTS = range(20_000, 32_768)  # below those that Linux gives to clients (ip_local_port_range)


@dataclass(frozen=True)
class Running:
    """A server in front of the engine that costs nothing."""

    process: asyncio.subprocess.Process
    at: Addresses

    async def cpu_seconds(self) -> float:
        """Return the CPU seconds that the server has used."""
        return sum(_cpu_seconds(Path(f"/proc/{each}/stat")) for each in self._processes())

    def loop_seconds(self) -> float:
        """Return the CPU seconds that its main threads, which run the event loops, have used."""
        return sum(_cpu_seconds(Path(f"/proc/{each}/task/{each}/stat")) for each in self._processes())

    def _processes(self) -> list[int]:
        """Return the ids of the process and of those that it has forked."""
        pid = self.process.pid
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]

    def stages(self) -> dict[str, float]:
        """Return the seconds that all frames have spent in each stage so far."""
        text = httpx.get(f"{self.at.url}/metrics", trust_env=False).text
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return {
            each.labels["stage"]: each.value for each in samples if each.name == "pranet_stage_duration_seconds_sum"
        }


@dataclass(frozen=True)
class Line:
    """One measurement: a row of the load, and where the time of a frame went, milliseconds."""

    row: Row
    loop_ms: float
    stages_ms: Mapping[str, float]


Measured = dict[tuple[str, int, str], list[Line]]  # by transport, cores of the server, and checkout
FIGURES: dict[str, Callable[[Line], float]] = {
    "frames/s": lambda line: line.row.frames_per_second,
    "CPU ms/frame": lambda line: line.row.server_cpu_ms or math.nan,
    "event loop": lambda line: line.loop_ms,
    "p50 ms": lambda line: line.row.p50_ms,
    "p99 ms": lambda line: line.row.p99_ms,
}


@asynccontextmanager
async def serving(checkout: Path, cores: int, processes: int, connections: int) -> AsyncIterator[Running]:
    """Serve a checkout on ``cores`` cores inside the block; ``connections`` are those of gRPC.

    Raises:
        BenchError: the server ended, or was not ready in time.

    """
    port, grpc_port = _free_ports(2)
    flags = ["--port", port, "--grpc-port", grpc_port, "--log-level", "error", "--max-queue-size", 256]
    if processes > 1:  # earlier checkouts do not know the flag
        flags += ["--processes", processes]
    command = [sys.executable, "-P", SCRIPT, checkout, cores, *flags]  # -P: the folder of the script is no package
    process = await asyncio.create_subprocess_exec(*map(str, command), stdout=subprocess.DEVNULL, cwd=checkout)
    running = Running(process, Addresses(f"http://127.0.0.1:{port}", f"127.0.0.1:{grpc_port}", connections))
    try:
        await _until_ready(running)
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def measure(running: Running, over: str, images: Sequence[bytes], arguments: argparse.Namespace) -> Line:
    """Measure one transport, with ``arguments.concurrency`` frames in flight or ``arguments.rate`` a second."""
    async with AsyncExitStack() as stack:
        load = await LOADS[over](stack, running.at, images, Pace(arguments.concurrency, arguments.rate))
        stages, loop, began = running.stages(), running.loop_seconds(), await running.cpu_seconds()
        answers, window = await watched(load, running.cpu_seconds, warm_up=arguments.warm_up, seconds=arguments.seconds)
        share = (running.loop_seconds() - loop) / (await running.cpu_seconds() - began)
        row = summarise(over, answers, window)
        spent = {name: 1e3 * (total - stages.get(name, 0.0)) / len(answers) for name, total in running.stages().items()}
    return Line(row, share * (row.server_cpu_ms or math.nan), spent)


def run(arguments: argparse.Namespace, images: Sequence[bytes]) -> tuple[Measured, list[str]]:
    """Measure all checkouts in turns; return what was measured, and the names of the checkouts.

    Raises:
        BenchError: a server did not start, or a transport has no rate.

    """
    if arguments.rate is not None and not set(arguments.over) <= set(ONE_BY_ONE):
        raise BenchError(f"--rate needs a request for each frame; give --over {' '.join(ONE_BY_ONE)}, or one of them")
    checkouts = {"this": ROOT} | ({"other": arguments.against.resolve()} if arguments.against else {})
    found: Measured = defaultdict(list)
    usable = os.sched_getaffinity(0)

    async def measure_transports(name: str, cores: int) -> None:
        async with serving(checkouts[name], cores, arguments.processes, arguments.connections) as running:
            os.sched_setaffinity(0, set(sorted(usable)[cores:]) or usable)
            for over in arguments.over:
                found[over, cores, name].append(await measure(running, over, images, arguments))

    for _, cores, name in itertools.product(range(arguments.rounds), arguments.cores, checkouts):
        try:
            uvloop.run(measure_transports(name, cores))
        finally:
            os.sched_setaffinity(0, usable)
    return found, list(checkouts)


def table(found: Measured, checkouts: Sequence[str]) -> list[list[str]]:
    """Return the cells of a table: means over the rounds, and ratios to the last checkout."""
    lines = [["over", "cores", "checkout", *FIGURES, "stages, ms", "frames/s ratio", "CPU ratio"]]
    for transport, number, name in sorted(found, key=lambda key: (*key[:2], checkouts.index(key[2]))):
        ours, others = (_means(found[transport, number, each]) for each in (name, checkouts[-1]))
        stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in found[transport, number, name][-1].stages_ms.items())
        ratios = [f"{ours[figure] / others[figure]:.2f}" for figure in ("frames/s", "CPU ms/frame")]
        lines.append([transport, str(number), name, *(f"{each:.4g}" for each in ours.values()), stages, *ratios])
    return lines


def _means(lines: Sequence[Line]) -> dict[str, float]:
    return {name: statistics.mean(figure(line) for line in lines) for name, figure in FIGURES.items()}


def _cpu_seconds(stat: Path) -> float:
    """Return user and system time of a process or thread (proc_pid_stat(5), fields 14 and 15)."""
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _free_ports(number: int) -> list[int]:
    """Return ports for a server that opens them later; the kernel gives none of them to a client until then."""
    free: list[int] = []
    for port in random.sample(SERVER_PORTS, len(SERVER_PORTS)):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            free.append(port)
        if len(free) == number:
            break
    return free


async def _until_ready(running: Running) -> None:
    end = time.monotonic() + START_SECONDS
    async with httpx.AsyncClient(trust_env=False) as client:
        while time.monotonic() < end:
            if running.process.returncode is not None:
                raise BenchError("the server ended before it was ready; see its message above")
            try:
                if (await client.get(f"{running.at.url}/readyz")).is_success:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)
    raise BenchError(f"the server was not ready after {START_SECONDS:g} s")
