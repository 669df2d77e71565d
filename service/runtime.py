"""The transport-independent service: everything between an encoded image and its answer, and its lifetime."""

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from model.cores import usable_cores
from model.engines import factory
from model.engines.predictor import ModelRef, Predictor
from model.transforms import Pixels
from model.weights import weights_file
from service.access.authentication import Authentication
from service.access.tls import RenewableTls, of_server
from service.archives.archive import Archives
from service.batching.admission import Admission
from service.batching.batcher import HANG_SECONDS, Batcher
from service.batching.device_thread import in_device_thread
from service.calls import Calls
from service.frames.frame import Inference, rehearse
from service.frames.model_slot import PREPARE_SECONDS, ModelSlot
from service.frames.segmenter import Segmenter, inference
from service.frames.side_outputs import SideOutputs
from service.observability import tracing
from service.observability.metrics import Metrics
from service.readiness import Phase, Readiness
from service.settings import Settings
from service.streams.registry import Streams

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Service:
    """What a transport needs."""

    settings: Settings
    model_slot: ModelSlot
    max_batch_size: int
    segmenter: Segmenter
    streams: Streams
    archives: Archives
    readiness: Readiness
    metrics: Metrics
    calls: Calls
    tls: RenewableTls | None  # None: switched off

    @property
    def model(self) -> ModelRef:
        """The weights that answer now, and what runs them."""
        return self.model_slot.ref


def load_predictor(settings: Settings) -> Predictor:
    """Load the weights and put them on the device; not yet warmed up.

    Raises:
        CheckpointError: the weights cannot be used.
        DeviceError: the wanted device is not to be had.

    """
    weights = weights_file.identify(settings.weights_path)
    predictor = factory.create(
        weights,
        device=settings.device,
        engine=settings.engine,
        precision=settings.precision,
        cache_dir=settings.cache_path,
    )
    log.info("weights %s from %s", weights.model_id, settings.weights_path)
    return predictor


@contextlib.asynccontextmanager
async def running(
    settings: Settings,
    predictor: Predictor,
    *,
    load: Callable[[], Predictor] | None = None,
    hang_seconds: float | None = None,
) -> AsyncIterator[Service]:
    """Build the data path in front of a predictor and start it; ``warm_up`` comes next in a server.

    ``load`` makes the predictor that takes over on ``reload``: by default, from the weights file of the settings.

    Raises:
        TokensError: the file of tokens cannot be used.
        TlsError: the certificate, its key or the authorities of clients cannot be used.

    """
    metrics = Metrics()
    files = of_server(settings)
    authentication = Authentication(
        settings.api_tokens_file, rate_limit=settings.rate_limit, concurrency=settings.token_concurrency
    )
    _watch_gpu(metrics, factory.resolve_device(settings.device))
    max_batch_size = settings.max_batch_size or factory.default_batch_size(settings.device)
    async with contextlib.AsyncExitStack() as stack:
        traces = await stack.enter_async_context(tracing.started(settings.traces_endpoint))
        pool = stack.enter_context(ThreadPoolExecutor(usable_cores(), thread_name_prefix="cpu"))
        batcher = await stack.enter_async_context(_batcher(settings, predictor, max_batch_size, metrics, hang_seconds))
        readiness = Readiness(batcher.dead)
        metrics.ready.set_function(lambda: readiness.ready)
        side_outputs = SideOutputs(settings.weights_path) if settings.maps else None
        segmenter = Segmenter(
            batcher,
            Admission(settings.max_queue_size),
            pool,
            metrics,
            traces,
            max_image_pixels=settings.max_image_pixels,
            side_outputs=side_outputs,
        )
        model_slot = ModelSlot(
            batcher,
            predictor.model,
            load or functools.partial(load_predictor, settings),
            side_outputs,
            metrics,
            max_batch_size=max_batch_size,
        )
        del predictor  # the batcher has it, until another takes over
        yield Service(
            settings,
            model_slot,
            max_batch_size,
            segmenter,
            _streams(settings, segmenter, metrics),
            _archives(settings, max_batch_size, segmenter, readiness),
            readiness,
            metrics,
            Calls(authentication, readiness, metrics, traces, timeout_seconds=settings.request_timeout_ms / 1e3),
            RenewableTls(files) if files else None,
        )


async def warm_up(service: Service, predictor: Predictor) -> None:
    """Run every batch size that will be served and the work around it, then take new work (``Phase.SERVING``).

    Raises:
        TimeoutError: the device hangs.

    """
    async with asyncio.timeout(PREPARE_SECONDS):
        await in_device_thread(predictor.warm_up, service.max_batch_size)
    await asyncio.to_thread(rehearse)
    if service.readiness.phase is Phase.STARTING:
        service.readiness.enter(Phase.SERVING)


def _batcher(
    settings: Settings, predictor: Predictor, max_batch_size: int, metrics: Metrics, hang_seconds: float | None
) -> Batcher[Pixels, Inference]:
    return Batcher(
        inference(predictor),
        max_batch_size=max_batch_size,
        max_queue_delay=settings.max_queue_delay_ms / 1e3,
        slots=predictor.slots,
        hang_seconds=hang_seconds or _hang_seconds(settings),
        on_batch=metrics.batch_size.observe,
    )


def _streams(settings: Settings, segmenter: Segmenter, metrics: Metrics) -> Streams:
    return Streams(
        segmenter,
        metrics,
        max_streams=settings.max_streams,
        window=settings.stream_window,
        frame_timeout=settings.request_timeout_ms / 1e3,
    )


def _archives(settings: Settings, max_batch_size: int, segmenter: Segmenter, readiness: Readiness) -> Archives:
    return Archives(
        segmenter,
        readiness,
        max_archives=settings.max_archives,
        # Two batches, so that the device never waits; at most half of all places, so that others find some.
        at_once=max(1, min(2 * max_batch_size, settings.max_queue_size // 2)),
    )


def _watch_gpu(metrics: Metrics, device: str) -> None:
    if device != "cpu":
        from model.engines.cuda import device_metrics  # PyTorch

        metrics.gpu_utilization.labels(device).set_function(lambda: device_metrics.utilization(device))
        metrics.gpu_memory.labels(device).set_function(lambda: device_metrics.memory_used(device))


def _hang_seconds(settings: Settings) -> float:
    """Return after how many seconds a call counts as hung: early enough for those that came after it."""
    return max(HANG_SECONDS, settings.request_timeout_ms / 2e3)
