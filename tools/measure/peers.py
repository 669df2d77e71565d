"""``make peers`` (ten minutes): compares the service with plain servers of the same network on the same machine.

The peers in ``peers/`` are a loop without a server, FastAPI, and LitServe with two workers. All of them load the
network from one OpenVINO file and process a picture in the same way. Run it on an idle machine with two cores.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import openvino as ov
import psutil
import torch

from model.engines.openvino import int8 as openvino_int8
from model.rewrites.folding import fold_batch_norm
from model.rewrites.scale_grouping import group_scales
from model.transforms import SIZE
from model.weights import checkpoint
from service.commands.bench import servers
from service.commands.bench.errors import BenchError
from service.commands.bench.load import closed_loop, watched
from service.commands.bench.measure import Row, summarise
from tests.support.pictures import ROOT, SAMPLES, annotation, dice, mask_of
from tests.support.processes import STOP_SECONDS
from tools.measure import checkouts

PEERS = ROOT / "tools" / "peers"
PYTHON = PEERS / ".venv" / "bin" / "python"
WARM_UP_SECONDS = 2.0
PATIENCE = 60.0
LEAST_DICE = 0.8  # between a mask and its annotation; below it, a peer computes something else

Figures = tuple[float, float, float, float]  # pictures a second, median ms, processor ms of a picture, failed


class Plain(torch.nn.Module):
    """The network under the name that its calibration knows."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.network(frames)


@dataclass(frozen=True)
class Peer:
    name: str
    command: tuple[object, ...]
    field: str  # of the form that takes the picture; empty: it is the body
    path: str
    health: str


def service(name: str, checkout: Path, precision: str, *flags: object) -> Peer:
    """Return the service of a checkout, run by this environment's Python and packages."""
    options = ("serve", "--grpc-port", 0, "--log-level", "warning", "--precision", precision, *flags, "--port")
    return Peer(name, (*checkouts.program(checkout), *options), "", "/segment", "/readyz")


def peers(precision: str, against: Path | None) -> list[Peer]:
    fastapi = (PYTHON, "-m", "uvicorn", "fastapi_app:app", "--log-level", "warning", "--port")
    return [
        service("PraNet service", ROOT, precision),
        service("PraNet service, 256 px", ROOT, precision, "--input-size", 256),
        *([service("PraNet service, other checkout", against, precision)] if against else []),
        Peer("FastAPI", fastapi, "request", "/predict", "/health"),
        Peer("LitServe, 2 workers", (PYTHON, "litserve_app.py"), "request", "/predict", "/health"),
    ]


def network(folder: Path, *, int8: bool) -> Path:
    """Write what the peers run: normalised float32 (N, 3, 352, 352) to logits (N, 1, 352, 352)."""
    weights = checkpoint.load(ROOT / "weights" / "pranet.safetensors")
    folded = fold_batch_norm(weights.network())
    plain = Plain(group_scales(folded) if int8 else folded)  # the calibration was made for grouped scales
    example = torch.zeros(1, 3, 64, 64)
    with torch.inference_mode():
        traced = torch.jit.trace(plain, example, check_trace=False)
        graph = ov.convert_model(traced, example_input=example, input=[ov.PartialShape([-1, 3, SIZE, SIZE])])
    if int8:
        openvino_int8.quantise(graph, openvino_int8.load(weights))
    ov.save_model(graph, folder / "network.xml", compress_to_fp16=False)
    return folder / "network.xml"


def loops(model: Path, seconds: float, *, count: int, threads: int) -> Figures:
    """Run several loops without a server at once, and add up their rates."""
    command = [PYTHON, "segmentation.py", model, 1, seconds, threads, *SAMPLES]
    running = [
        subprocess.Popen(list(map(str, command)), cwd=PEERS, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(count)
    ]
    for each in running:
        assert each.stdout is not None
        each.stdout.readline()
    for each in running:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    found = [json.loads(each.communicate()[0]) for each in running]
    p50, cpu = (statistics.mean(each[name] for each in found) for name in ("p50_ms", "cpu_ms"))
    return sum(each["rate"] for each in found), p50, cpu, 0


@contextlib.asynccontextmanager
async def served(peer: Peer, model: Path) -> AsyncIterator[tuple[str, psutil.Process]]:
    """Run a peer inside the block; yield its address and process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    needs_port = peer.command[-1] == "--port"
    command = [*map(str, peer.command), *([port] if needs_port else [])]
    variables = {**os.environ, "MODEL": str(model), "PORT": port}
    process = psutil.Popen(command, cwd=PEERS, env=variables, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(PATIENCE):
            while not await _healthy(client, url + peer.health):
                if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                    raise BenchError(f"{peer.name} has ended before it was ready")
                await asyncio.sleep(0.1)
        yield url, process
    finally:
        family = [*process.children(recursive=True), process]
        process.terminate()
        _, alive = psutil.wait_procs(family, timeout=STOP_SECONDS)
        for each in alive:
            each.kill()


async def _healthy(client: httpx.AsyncClient, address: str) -> bool:
    try:
        return (await client.get(address)).is_success
    except httpx.TransportError:
        return False


async def cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU seconds of a process and its children."""
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(each.user + each.system for each in times)


async def rows(peer: Peer, model: Path, concurrencies: Sequence[int], seconds: float) -> dict[int, Row]:
    """Start a peer and measure it at each number of requests in flight."""
    found = {}
    async with served(peer, model) as (url, process):
        messages = [servers.message(_request(peer, url, sample.read_bytes())) for sample in SAMPLES]
        for concurrency in concurrencies:
            async with servers.lean_http(url, concurrency) as send:
                for message, sample in zip(messages, SAMPLES, strict=True):
                    assert dice(mask_of(await send(message)), annotation(sample)) > LEAST_DICE, f"{peer.name} is wrong"
                load = partial(closed_loop, send, messages, concurrency)
                measured = await watched(load, partial(cpu_seconds, process), warm_up=WARM_UP_SECONDS, seconds=seconds)
            found[concurrency] = summarise(peer.name, *measured)
    return found


def _request(peer: Peer, url: str, picture: bytes) -> httpx.Request:
    if not peer.field:
        return httpx.Request("POST", url + peer.path, content=picture)
    return httpx.Request("POST", url + peer.path, files={peer.field: ("frame.jpg", picture, "image/jpeg")})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--precision",
        choices=("auto", "bf16", "fp32", "int8"),
        default="auto",
        help="of the service; the others get the network in int8 for int8, else in floating point",
    )
    parser.add_argument("--concurrency", default="1,16", help="requests in flight (default: 1,16)")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="also measure the service of another checkout")
    arguments = parser.parse_args()
    concurrencies = [int(each) for each in arguments.concurrency.split(",")]
    table: dict[tuple[str, int], list[Figures]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        model = network(Path(folder), int8=arguments.precision == "int8")
        for number in range(arguments.rounds):
            table["no server", 1].append(loops(model, arguments.seconds, count=1, threads=0))
            table["no server, 2 processes", 2].append(loops(model, arguments.seconds, count=2, threads=1))
            for peer in peers(arguments.precision, arguments.against)[:: 1 if number % 2 else -1]:
                for concurrency, row in asyncio.run(rows(peer, model, concurrencies, arguments.seconds)).items():
                    table[peer.name, concurrency].append(_figures(row))
    print("| | at once | pictures/s | p50 ms | CPU ms a picture | failed |\n|---|---|---|---|---|---|")
    for (name, concurrency), measured in sorted(table.items(), key=lambda item: item[0][1]):
        rate, p50, cpu, failed = map(statistics.mean, zip(*measured, strict=True))
        print(f"| {name} | {concurrency} | {rate:.2f} | {p50:.0f} | {cpu:.1f} | {failed:g} |")


def _figures(row: Row) -> Figures:
    assert row.server_cpu_ms is not None
    return row.frames_per_second, row.p50_ms, row.server_cpu_ms, row.failed


if __name__ == "__main__":
    print(time.strftime("%Y-%m-%d"), f"OpenVINO {ov.__version__.split('-')[0]}", sep=", ")
    main()
