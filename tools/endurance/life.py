"""One life of the server's process: its clients, their book, and how it ends."""

import asyncio
import contextlib
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import httpx

from pranet_client.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc
from service.pb.inference import open_inference_pb2_grpc as oip_grpc
from tests.support import processes
from tests.support.processes import Server
from tools.endurance.book import Book
from tools.endurance.counters import Scrape, scraped
from tools.endurance.resources import Resources, held

if TYPE_CHECKING:
    from tools.endurance.renewal import Site  # imports PyTorch, which the books and their tests do without

FAULTY = (*processes.PROGRAM[:2], "tests.support.servers.faulty_server")
KEPT_SECONDS = 2.0  # an idle connection: a server that restarts closes it, and a request on it would be lost
LAST_SECONDS = 90.0  # for the calls of a process that has ended, or that gets no new ones, to come to their end
LIMITS = httpx.Limits(max_connections=None, keepalive_expiry=KEPT_SECONDS)


@dataclass(eq=False)
class Life:
    """A process from its start to its end; ``ending`` names the signal once it was sent."""

    number: int
    server: Server
    site: "Site"
    log: Path
    rest: httpx.AsyncClient
    channel: grpc.aio.Channel
    began: float
    book: Book = field(default_factory=Book)
    broken: list[str] = field(default_factory=list)
    scrape: Scrape | None = None  # the last one
    ending: str = ""
    ending_at: float = float("inf")
    code: int | None = None
    retired: set[str] = field(default_factory=set)  # weights that no new request may be answered by
    swaps: int = 0
    faults: Counter[str] = field(default_factory=Counter)  # injected ones
    processes: int = field(init=False)  # that serve: the one that was started, or those that it has started
    idle: Resources = field(init=False)  # what the process holds before its clients come
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.stub = pb_grpc.SegmentationServiceStub(self.channel)
        self.inference = oip_grpc.GRPCInferenceServiceStub(self.channel)
        self.processes = len(processes.children(self.server)) or 1
        self.idle = held(self.server.process.pid)
        self.over = asyncio.Event()  # no new calls: the process has ended, or will get none before its end

    @property
    def name(self) -> str:
        return f"life {self.number}"

    @property
    def headers(self) -> dict[str, str]:
        return dict(self.site.access.metadata())

    def breaks(self, promise: str) -> None:
        """Record a broken promise, and say so at once."""
        self.broken.append(promise)
        print(f"{time.strftime('%H:%M:%S')} {self.name}: {promise}", file=sys.stderr, flush=True)

    def is_ending(self, began: float) -> bool:
        """Tell whether a request may have been refused or cut off since the process was told to end."""
        return time.monotonic() >= self.ending_at or began >= self.ending_at

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Event:
        """Run what talks to this process; its faults are broken promises. Return what its end sets."""
        task, ended = asyncio.create_task(work), asyncio.Event()
        task.add_done_callback(lambda _: ended.set())
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return ended

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.breaks(f"a client fails with {type(error).__name__}: {error}")

    async def last_calls(self) -> None:
        """Wait until everything that talks to this process has come to its end."""
        self.over.set()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=LAST_SECONDS)
            for task in late:
                self.breaks(f"no end after {LAST_SECONDS:.0f} s: {task.get_coro()}")
                task.cancel()

    async def look(self) -> Scrape:
        """Scrape the counters; the scrape itself is in the next one."""
        self.scrape = await scraped(self._metrics)
        ended = self.scrape.ended
        self.book.note("scrape", ended, ended, rest="200")
        return self.scrape

    async def _metrics(self) -> str:
        return (await self.rest.get("/metrics", headers=self.headers)).raise_for_status().text

    def send_signal(self, number: signal.Signals) -> None:
        if number is not signal.SIGHUP:
            self.ending, self.ending_at = number.name, time.monotonic()
        if number is signal.SIGKILL:
            self.faults["orphans"] = self.processes
        with contextlib.suppress(ProcessLookupError):
            self.server.process.send_signal(number)

    async def exit(self) -> int:
        """Wait until the process has ended; scrape as long as it answers."""
        while (code := self.server.process.poll()) is None:
            if self.ending and not self.rest.is_closed:
                with contextlib.suppress(httpx.HTTPError):
                    await self.look()
            await asyncio.sleep(0.2)
        self.code = code
        return code


@contextlib.asynccontextmanager
async def living(number: int, site: "Site", arguments: list[object]) -> AsyncIterator[Life]:
    """Start the server and its clients; at the end of the block the process has ended, however it came."""
    log = site.folder / f"life-{number}.log"
    with contextlib.ExitStack() as stack:
        lines = stack.enter_context(log.open("w"))
        serving = processes.server(
            *site.arguments(), *arguments, program=FAULTY, stderr=lines, ca=site.access.ca, process_group=0,
            TMPDIR=str(site.temporary),
        )  # fmt: skip
        try:
            server = await asyncio.to_thread(serving.__enter__)
        except AssertionError as error:
            raise RuntimeError(f"{error}: {log.read_text()[-2000:]}") from error
        stack.push(serving)
        async with (
            site.access.http(server.url, timeout=300, limits=LIMITS) as rest,
            site.access.channel(server.grpc_address) as channel,
        ):
            life = Life(number, server, site, log, rest, channel, time.monotonic())
            life.book.note("readiness", life.began - 1, life.began - 1, rest="200")
            life.retired = {site.model_ids[1]}
            try:
                yield life
            finally:
                await life.last_calls()
