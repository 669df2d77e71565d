"""Calls of ``SegmentStream``, and a service that a test can hold at any point of a frame's life."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from pranet_client.errors import ERROR_METADATA_KEY
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc
from service.frames import frame as frame_module
from service.observability.metrics import OUTCOMES
from tests.support.patching import Patches, patching
from tests.support.pictures import encoded, red_box
from tests.support.predictors import GatedPredictor
from tests.support.serving import PATIENCE, Running, serving, until

PICTURE = encoded(red_box(64, 48, (16, 12, 48, 36)))
CONFIG = pb.StreamRequest(config=pb.StreamConfig())
EVERY = pb.StreamRequest(config=pb.StreamConfig(policy=pb.POLICY_EVERY))
NARROW = (("grpc.http2.bdp_probe", 0),)  # a client that takes up 64 KiB unread, however fast the network
POOLS = ("cpu", "asyncio", "device-0")  # threads that stay for the next frame

Call = Any  # grpc.aio.StreamStreamCall, whose type parameters the stubs do not agree on


def frame(number: int, **fields: Any) -> pb.StreamRequest:
    return pb.StreamRequest(frame=pb.StreamFrame(frame_id=number, **(fields or {"image": PICTURE})))


async def replies(call: Call) -> list[pb.StreamResponse]:
    async with asyncio.timeout(PATIENCE):
        return [response async for response in call]


async def status(call: Call) -> tuple[grpc.StatusCode, str]:
    """Return the code of a call that ends, and the cause that the service names."""
    async with asyncio.timeout(PATIENCE):
        code = await call.code()
        return code, dict(await call.trailing_metadata()).get(ERROR_METADATA_KEY, "")


class Held:
    """A service whose decoding and whose device the test holds; the predictor is warm."""

    def __init__(
        self, it: Running, predictor: GatedPredictor, stub: pb_grpc.SegmentationServiceStub, patched: Patches
    ) -> None:
        self.it = it
        self.predictor = predictor
        self.stub = stub
        self._patched = patched
        self.decoding = threading.Event()  # a frame has come so far
        self._decode = threading.Event()  # it may go on
        self._threads = set(threading.enumerate())

    def hold_decoding(self) -> None:
        self._patched("service.frames.segmenter", "prepare", self._prepare)

    def open(self) -> None:
        """Let everything through from now on."""
        self._decode.set()
        self.predictor.open()

    def _prepare(self, *args: Any) -> Any:
        self.decoding.set()
        self._decode.wait(PATIENCE)
        return frame_module.prepare(*args)

    @property
    def received(self) -> float:
        return self.it.metric("pranet_frames_received_total", {"slot": "0"})

    @property
    def answered(self) -> float:
        return self.it.metric("pranet_frames_total", {"slot": "0", "outcome": "answered"})

    async def nothing_left(self) -> None:
        """Wait until no stream is open and no frame in flight; then no task, queue entry or thread may be left."""
        await until(lambda: not self.it.service.calls.unanswered)
        await until(lambda: not self.it.service.segmenter.in_flight)
        assert self.it.metric("pranet_queue_depth") == 0
        assert not [task for task in asyncio.all_tasks() if "Stream." in str(task.get_coro())]
        new = [thread.name for thread in set(threading.enumerate()) - self._threads]
        assert [name for name in new if not name.startswith(POOLS)] == []
        assert sum(name.startswith("device") for name in new) <= 1  # none was left behind in a call
        check_identity(self.it)


@contextlib.asynccontextmanager
async def held(**settings: Any) -> AsyncIterator[Held]:
    predictor = GatedPredictor()
    async with (
        serving(predictor, **settings) as it,
        grpc.aio.insecure_channel(f"127.0.0.1:{it.grpc_port}", NARROW) as channel,
    ):
        await asyncio.gather(channel.channel_ready(), it.channel.channel_ready())  # not within a call's own time
        with patching() as patched:
            made = Held(it, predictor, pb_grpc.SegmentationServiceStub(channel), patched)
            try:
                yield made
            finally:
                made.open()


async def reached(call: Call, condition: Callable[[], bool]) -> None:
    """Wait until a call has come to some state, or is over."""
    async with asyncio.timeout(PATIENCE):
        while not condition() and not call.done():  # noqa: ASYNC110 - nobody sets an event for it
            await asyncio.sleep(0.005)


def check_identity(it: Running, slot: str = "0") -> None:
    """received = answered + dropped + failed + abandoned, by the service's own count."""
    total = sum(it.metric("pranet_frames_total", {"slot": slot, "outcome": name}) for name in OUTCOMES)
    assert it.metric("pranet_frames_received_total", {"slot": slot}) == total
