"""A benchmark of one running server: runs one load after another, and keeps their results."""

from contextlib import AbstractAsyncContextManager
from types import TracebackType

from service.commands.bench.load import Load, watched
from service.commands.bench.measure import Answer, Row, summarise
from service.commands.bench.servers import Server


class Session:
    """Measures a server; use it as ``async with``, which connects to the server."""

    def __init__(self, connect: AbstractAsyncContextManager[Server], warm_up: float, seconds: float) -> None:
        self.rows: list[Row] = []
        self.answers: dict[str, list[Answer]] = {}  # by name of the load
        self._connect = connect
        self._times = {"warm_up": warm_up, "seconds": seconds}

    async def __aenter__(self) -> Server:
        self._server = await self._connect.__aenter__()
        return self._server

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connect.__aexit__(kind, error, trace)

    async def measure(self, name: str, load: Load) -> Row:
        """Run one load; return and keep its row."""
        self.answers[name], window = await watched(load, self._server.cpu_seconds, **self._times)
        self.rows.append(summarise(name, self.answers[name], window))
        return self.rows[-1]
