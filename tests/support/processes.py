"""Commands in processes of their own, ``pranet`` above all, as a user starts them."""

import contextlib
import os
import re
import ssl
import subprocess
import sys
import sysconfig
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import grpc
import httpx

from tests.support.pictures import ROOT

PROGRAM = (sys.executable, "-m", "service.commands.main")
FAKE_PREDICTOR = (sys.executable, "-m", "tests.support.servers.fake_predictor_server")
SCRIPTS = Path(sysconfig.get_path("scripts"))
USUAL: list[object] = ["--port", 0, "--grpc-port", 0, "--log-level", "warning"]  # `pytest --processes N` adds to it
START_SECONDS = 120  # import of torch, reading of weights and warm-up on a busy machine
STOP_SECONDS = 60
CONNECTIONS = 12  # each goes to one of two processes by chance: all to the same one 1 time in 2048
ANNOUNCEMENT = re.compile(r"PraNet is ready: (?P<url>https?://\S+) \(gRPC (?P<grpc_port>\d+)\)")


@dataclass(frozen=True)
class Server:
    """A ``pranet serve`` that is ready."""

    process: "subprocess.Popen[str]"
    url: str
    grpc_address: str


def pranet(*arguments: object, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run one command to its end."""
    return subprocess.run(
        _command(arguments), cwd=ROOT, env=_environment(variables), text=True, capture_output=True, check=False
    )


def check(*command: object) -> str:
    """Run a checker that must find nothing wrong; return what it printed."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextlib.contextmanager
def server(
    *arguments: object,
    program: Sequence[object] = PROGRAM,
    stdin: int | None = None,
    stderr: IO[str] | None = None,
    ca: Path | None = None,
    process_group: int | None = None,
    **variables: str,
) -> Iterator[Server]:
    """Serve on free ports inside the block; process group 0 is one of its own, which Ctrl-C does not reach."""
    command = _command(("serve", *USUAL, *arguments), program)
    with subprocess.Popen(
        command, cwd=ROOT, env=_environment(variables), text=True, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr,
        process_group=process_group,
    ) as process:  # fmt: skip
        try:
            yield _announced(process, ssl.create_default_context(cafile=ca) if ca else True)
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def fake_server(*arguments: object, **options: Any) -> contextlib.AbstractContextManager[Server]:
    """Serve with a predictor that needs no weights; see ``servers/fake_predictor_server.py``."""
    return server(*arguments, program=FAKE_PREDICTOR, **options)


@contextlib.asynccontextmanager
async def clients(server: Server) -> AsyncIterator[tuple[httpx.AsyncClient, grpc.aio.Channel]]:
    """Connect a client of each protocol that may have any number of calls open."""
    limits = httpx.Limits(max_connections=None)
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=300, trust_env=False, limits=limits) as rest,
        grpc.aio.insecure_channel(server.grpc_address) as channel,
    ):
        yield rest, channel


@contextlib.contextmanager
def starting(
    *arguments: object,
    weights: Path,
    program: Sequence[object] = PROGRAM,
    command: Sequence[object] = (),
    stdin: int | None = None,
) -> Iterator["subprocess.Popen[str]"]:
    """Start ``pranet serve`` or another command, which inside the block reads weights that never come."""
    os.mkfifo(weights)
    begin = command or ("serve", *USUAL)
    words = _command((*begin, "--device", "cpu", "--weights", weights, *arguments), program)
    with subprocess.Popen(
        words, cwd=ROOT, env=_environment({}), text=True, stdin=stdin, stderr=subprocess.PIPE
    ) as process:
        try:
            with open(read_by_another(weights), "wb"):
                yield process
        finally:
            process.kill()


def read_by_another(fifo: Path) -> int:
    """Wait until a process reads a FIFO; return the end to write to."""
    end = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError):  # nobody reads it yet
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        assert time.monotonic() < end
        time.sleep(0.02)


def children(server: Server) -> list[int]:
    """Return the ids of the processes that serve where it has several, in the order of their starts."""
    return children_of(server.process)


def children_of(process: "subprocess.Popen[str]") -> list[int]:
    """Return the ids of the processes that a process has started, in this order."""
    pid = process.pid
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def everywhere(holds: Callable[[], bool]) -> bool:
    """Tell whether something holds on each of many new connections, which reach every process of a server."""
    return all(holds() for _ in range(CONNECTIONS))


def resident_bytes(server: Server, *, peak: bool = False) -> int:
    """Return how much memory a server has now, or the most it ever had."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(rf"{'VmHWM' if peak else 'VmRSS'}:\s+(\d+) kB", status)
    assert found
    return int(found[1]) * 1024


def _announced(process: "subprocess.Popen[str]", verify: ssl.SSLContext | bool) -> Server:
    assert process.stdout is not None
    for line in process.stdout:
        if found := ANNOUNCEMENT.search(line):
            url = f"{found['url']}/readyz"
            httpx.get(url, timeout=START_SECONDS, trust_env=False, verify=verify).raise_for_status()
            return Server(process, found["url"], f"127.0.0.1:{found['grpc_port']}")
    raise AssertionError(f"pranet serve ended with {process.wait(STOP_SECONDS)} before it was ready")


def _command(arguments: tuple[object, ...], program: Sequence[object] = PROGRAM) -> list[str]:
    return [*map(str, program), *map(str, arguments)]


def _environment(variables: dict[str, str]) -> dict[str, str]:
    """Return this process's environment without settings of its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PRANET_")}
    return {**inherited, **variables}
