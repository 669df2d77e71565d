"""Soak test: overloads the service over both protocols for minutes; run it from the root of the repository.

python -m tools.soak --minutes 10        on an idle machine

First, a closed loop of callers measures the capacity. Then requests are sent at 120 % of it, whether or not they are
answered. The exit code is 1 if a promise is broken: an answer is lost, late or an error; a refusal has another cause
than overload, or no time to retry; memory, files or threads grow; sockets stay open.
"""

import argparse
import asyncio
import itertools
import math
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import grpc
import httpx
import uvloop

from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc
from tests.support import processes
from tests.support.pictures import SAMPLES
from tests.support.processes import Server
from tools.endurance.resources import held

LOAD = 1.2  # of the capacity
QUEUE = 16  # short enough that at this capacity every queued request is answered before its deadline
CALLERS = 24  # of the closed loop that measures the capacity: they fill the queue and a batch
CAPACITY_SECONDS = 20
DEADLINE_SECONDS = 15.0
SAMPLE_SECONDS = 5
CLOSING_SECONDS = 10
GROWTH = 1.02  # of resident memory, from the first minute to the last

PICTURES = itertools.cycle([sample.read_bytes() for sample in SAMPLES])

Ask = Callable[[], Awaitable[str]]


@dataclass
class Sample:
    """Resources of the server's process at one moment."""

    resident: int  # bytes
    files: int  # without sockets, which come and go with what waits at the client
    threads: int
    queue: int


@dataclass
class Account:
    """The outcomes of all requests."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)  # by protocol and outcome
    seconds: list[float] = field(default_factory=list)  # of the answered ones

    async def ask(self, protocol: str, ask: Ask) -> None:
        """Send one request and record its outcome."""
        began = time.perf_counter()
        try:
            outcome = await ask()
        except (httpx.HTTPError, grpc.RpcError, OSError) as error:
            outcome = f"lost: {type(error).__name__}"
        if outcome == "answered":
            self.seconds.append(time.perf_counter() - began)
        self.outcomes[protocol, outcome] += 1

    def total(self, *outcomes: str) -> int:
        """Count the requests with one of these outcomes, or all."""
        return sum(number for (_, outcome), number in self.outcomes.items() if not outcomes or outcome in outcomes)


def askers(rest: httpx.AsyncClient, stub: pb_grpc.SegmentationServiceStub) -> dict[str, Ask]:
    """Return how one picture is sent over each protocol; each returns the outcome."""

    async def over_rest() -> str:
        headers = {"x-request-timeout-ms": str(round(DEADLINE_SECONDS * 1e3))}
        answer = await rest.post("/segment", content=next(PICTURES), headers=headers)
        if answer.status_code == 200:
            return "answered"
        refused = answer.status_code == 429 and answer.headers.get("retry-after", "").isdigit()
        return "refused" if refused else f"status {answer.status_code}"

    async def over_grpc() -> str:
        try:
            await stub.Segment(pb.SegmentRequest(image=next(PICTURES)), timeout=DEADLINE_SECONDS)
        except grpc.aio.AioRpcError as error:
            metadata = dict(error.trailing_metadata() or ())
            refused = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "retry-after" in metadata
            return "refused" if refused else f"status {error.code().name}"
        return "answered"

    return {"REST": over_rest, "gRPC": over_grpc}


async def capacity(asks: dict[str, Ask]) -> float:
    """Return the requests per second of callers that wait for each answer."""
    account = Account()
    until = time.monotonic() + CAPACITY_SECONDS

    async def caller(protocol: str) -> None:
        while time.monotonic() < until:
            await account.ask(protocol, asks[protocol])

    began = time.monotonic()
    await asyncio.gather(*(caller(protocol) for _, protocol in zip(range(CALLERS), itertools.cycle(asks))))
    return account.total("answered") / (time.monotonic() - began)


async def overload(asks: dict[str, Ask], rate: float, seconds: float) -> Account:
    """Send requests at a rate, one protocol after the other, and wait for the last answer."""
    account = Account()
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number, protocol in zip(range(round(rate * seconds)), itertools.cycle(asks), strict=False):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            group.create_task(account.ask(protocol, asks[protocol]))
    return account


async def closed(server: Server, sockets: int) -> bool:
    """Tell whether the server has no more sockets open than before its clients came, some seconds after they left."""
    for _ in range(CLOSING_SECONDS):
        await asyncio.sleep(1)
        if held(server.process.pid).sockets <= sockets:
            return True
    return False


async def watch(server: Server, rest: httpx.AsyncClient, samples: list[Sample]) -> None:
    """Record the resources of the server's process until cancelled."""
    while True:
        now = held(server.process.pid)
        metrics = (await rest.get("/metrics")).text
        queue = float(re.search(r"^pranet_queue_depth (\S+)", metrics, re.M)[1])  # type: ignore[index]
        samples.append(Sample(now.resident, len(now.files), now.threads, int(queue)))
        await asyncio.sleep(SAMPLE_SECONDS)


def report(account: Account, samples: list[Sample], rate: float, seconds: float) -> list[str]:
    """Print the results as a table; return the broken promises."""
    minute = max(1, min(60, int(seconds / 4)) // SAMPLE_SECONDS)
    first, last = samples[:minute], samples[-minute:]
    answered, refused, sent = account.total("answered"), account.total("refused"), account.total()
    largest = {
        name: tuple(max(getattr(each, name) for each in part) for part in (first, last))
        for name in ("resident", "files", "threads", "queue")
    }
    print(f"| {seconds / 60:.0f} minutes at {rate:.1f} requests a second, {LOAD:.0%} of capacity | |\n|---|---|")
    print(f"| sent, REST and gRPC in turn | {sent} |")
    print(f"| answered | {answered} |")
    print(f"| refused (429, RESOURCE_EXHAUSTED), each with Retry-After | {refused} |")
    print(f"| failed, late or lost | {sent - answered - refused} |")
    percentiles = statistics.quantiles(max(account.seconds, 2 * [math.inf], key=len), n=100, method="inclusive")
    p50, p99 = percentiles[49], percentiles[98]
    print(f"| answered after, p50 and p99 (deadline {DEADLINE_SECONDS:.0f} s) | {p50:.2f} s, {p99:.2f} s |")
    print(
        "| resident memory, first and last minute | {:.0f} MiB, {:.0f} MiB |".format(
            *(n / 2**20 for n in largest["resident"])
        )
    )
    for name in ("files", "threads", "queue"):
        print("| most {}, first and last minute | {}, {} |".format(name, *largest[name]))
    broken = [
        f"{number} {protocol} requests: {outcome}"
        for (protocol, outcome), number in account.outcomes.items()
        if outcome not in ("answered", "refused")
    ]
    broken += ["no request was refused: this was no overload"] * (not refused)
    broken += ["p99 exceeds the deadline"] * (p99 > DEADLINE_SECONDS)
    broken += ["resident memory grows"] * (largest["resident"][1] > GROWTH * largest["resident"][0])
    broken += [f"{name} grow" for name in ("files", "threads") if largest[name][1] > largest[name][0]]
    broken += ["the queue exceeds its limit"] * (max(largest["queue"]) > QUEUE)
    return broken


async def soak(seconds: float) -> int:
    """Run everything; return the exit code."""
    with processes.server("--max-queue-size", QUEUE) as server:
        sockets = held(server.process.pid).sockets
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=None)
        async with (
            httpx.AsyncClient(base_url=server.url, timeout=60, trust_env=False, limits=limits) as rest,
            grpc.aio.insecure_channel(server.grpc_address) as channel,
        ):
            asks = askers(rest, pb_grpc.SegmentationServiceStub(channel))
            rate = LOAD * await capacity(asks)
            samples: list[Sample] = []
            watching = asyncio.create_task(watch(server, rest, samples))
            account = await overload(asks, rate, seconds)
            if not watching.cancel():
                watching.result()
            broken = report(account, samples, rate, seconds)
        broken += ["sockets stay open after their clients left"] * (not await closed(server, sockets))
    for promise in broken:
        print(promise, file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Soak pranet serve in more load than it can carry.")
    parser.add_argument("--minutes", type=float, default=10)
    sys.exit(uvloop.run(soak(60 * parser.parse_args().minutes)))
