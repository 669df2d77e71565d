"""A predictor whose answers are known beforehand, and the whole service in front of it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import numpy as np

from model.engines.predictor import ModelRef, Predictor
from model.transforms import Floats, Pixels
from pranet_client.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc
from service.app import listening
from service.runtime import Service, running, warm_up
from service.settings import Settings

PATIENCE = 20  # seconds before a test that waits for an event gives up; nothing asserts how long anything takes


class RedPredictor:
    """Takes what is bright in the red channel for a polyp, so that every mask is known from its picture.

    ``before`` sees each batch first, and may raise or block; what ``after`` returns is answered instead of the logits.
    """

    model = ModelRef("red-00000000", "0" * 64, "fake", "cpu", "fp32")

    def __init__(
        self,
        before: Callable[[Pixels], None] = lambda frames: None,
        after: Callable[[Pixels, Floats], Floats] = lambda frames, logits: logits,
        slots: int = 1,
        warm_up: Callable[[int], None] = lambda max_batch_size: None,
    ) -> None:
        self.slots = slots
        self.batch_sizes: list[int] = []
        self.warm_up = warm_up
        self._before = before
        self._after = after

    def predict(self, frames: Pixels) -> Floats:
        """Map uint8 RGB (N, 3, 352, 352) to logits (N, 352, 352)."""
        self.batch_sizes.append(len(frames))
        self._before(frames)
        return self._after(frames, (frames[:, 0].astype(np.float32) - 127.5) / 16)


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
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE, trust_env=False)
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


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something that nobody announces has come about."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - nobody sets an event for it
            await asyncio.sleep(0.01)
