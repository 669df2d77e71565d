"""The whole service in front of a fake predictor, in this event loop."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import httpx

from model.engines.predictor import Predictor
from pranet_client.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc
from service.app import listening
from service.runtime import Service, running, warm_up
from service.settings import Settings
from tests.support.predictors import PATIENCE, RedPredictor


@dataclass(frozen=True)
class Running:
    """A service with its fake predictor, and a client of each protocol."""

    service: Service
    port: int
    grpc_port: int
    rest: httpx.AsyncClient
    channel: grpc.aio.Channel
    stub: pb_grpc.SegmentationServiceStub

    def metric(self, sample: str, labels: dict[str, str] | None = None) -> float:
        """Return one sample of the service's own registry, 0 before its first event."""
        return self.service.metrics.registry.get_sample_value(sample, labels or {}) or 0.0


@contextlib.asynccontextmanager
async def serving(
    predictor: Predictor | None = None,
    *,
    load: Callable[[], Predictor] | None = None,
    until_ready: bool = True,
    hang_seconds: float = PATIENCE,
    **settings: Any,
) -> AsyncIterator[Running]:
    """Run the whole service in this event loop, on free ports."""
    chosen_predictor = predictor or RedPredictor()
    chosen = Settings.model_validate({"port": 0, "grpc_port": 0, "device": "cpu", **settings})
    async with contextlib.AsyncExitStack() as stack:
        service = await stack.enter_async_context(
            running(chosen, chosen_predictor, load=load, hang_seconds=hang_seconds)
        )
        port, grpc_port = await stack.enter_async_context(listening(service))
        rest = await stack.enter_async_context(
            httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE, trust_env=False, verify=False
            )  # no TLS, whose context takes 50 ms to make
        )
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}"))
        warming = asyncio.create_task(warm_up(service, chosen_predictor))
        del predictor, chosen_predictor  # as a server would
        stack.callback(warming.cancel)
        if until_ready:
            await warming
        yield Running(service, port, grpc_port, rest, channel, pb_grpc.SegmentationServiceStub(channel))


@contextlib.asynccontextmanager
async def connected(it: Running) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a bare connection to the REST port, for clients that no library would be."""
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


def counted(it: Running) -> tuple[dict[tuple[str, str], float], dict[str, float]]:
    """Return requests by transport and code, and refusals by cause, of which there was at least one."""
    samples = [sample for family in it.service.metrics.registry.collect() for sample in family.samples if sample.value]
    return (
        {(s.labels["transport"], s.labels["code"]): s.value for s in samples if s.name == "pranet_requests_total"},
        {s.labels["reason"]: s.value for s in samples if s.name == "pranet_rejected_total"},
    )


def free_port() -> int:
    """Return a port for a service that starts later, or again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something that nobody announces has come about."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - nobody sets an event for it
            await asyncio.sleep(0.01)
