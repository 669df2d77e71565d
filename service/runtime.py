"""Builds the data path, from an encoded image to its answer, that all transports share, and ends it in order."""

import asyncio
import contextlib
import functools
import logging
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import numpy as np

from model import transforms
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
from service.batching.queue import Priority
from service.calls import Calls
from service.dicom import recognition
from service.frames.frame import Inference, warm_up_cpu
from service.frames.model_slot import PREPARE_SECONDS, ModelSlot
from service.frames.segmenter import CpuPool, Segmenter, inference
from service.frames.side_outputs import SideOutputs
from service.observability import tracing
from service.observability.metrics import Metrics
from service.observability.scrape import Scrape
from service.observability.tracing import Tracing
from service.processes.group import Group
from service.readiness import Phase, Readiness
from service.settings import Settings
from service.streams.registry import Streams

UNREAD_SECONDS = 30.0  # how long an answer of a stream may stay unread before the stream is closed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Service:
    """The running service as transports use it: the data path, its state and its settings."""

    settings: Settings
    model_slot: ModelSlot
    max_batch_size: int
    max_queue_size: int  # how many requests may wait in this process
    segmenter: Segmenter
    streams: Streams
    archives: Archives
    readiness: Readiness
    metrics: Metrics
    scrape: Scrape
    calls: Calls
    group: Group
    tls: RenewableTls | None  # None: TLS is off

    @property
    def model(self) -> ModelRef:
        """The identity of the weights that answer now, with engine, device and precision."""
        return self.model_slot.ref


def load_predictor(settings: Settings) -> Predictor:
    """Load the weights onto the device; the first calls are slow until ``Predictor.warm_up`` has run.

    Raises:
        CheckpointError: the weights cannot be used.
        DeviceError: the requested device is not available.

    """
    weights = weights_file.identify(settings.weights_path)
    predictor = factory.create(
        weights,
        device=settings.device,
        engine=settings.engine,
        precision=settings.precision,
        cache_dir=settings.cache_path,
        input_size=settings.input_size,
        threads=_cores(settings.processes),
    )
    log.info("weights %s from %s", weights.model_id, settings.weights_path)
    if transforms.compiled is None:
        log.info("Pillow resizes pictures, in four times the time: no C compiler was there to install with, or no AVX2")
    return predictor


@contextlib.asynccontextmanager
async def running(
    settings: Settings,
    predictor: Predictor,
    *,
    load: Callable[[], Predictor] | None = None,
    hang_seconds: float | None = None,
    group: Group | None = None,
) -> AsyncIterator[Service]:
    """Run the data path in front of a predictor inside the block. A server calls ``warm_up`` next.

    Args:
        settings: all settings.
        predictor: answers until the first hot reload.
        load: makes the predictor for a hot reload; by default from the weights file of the settings.
        hang_seconds: no call on the device counts as hung before this; by default from the request timeout.
        group: the processes that serve together; by default this one serves alone.

    Raises:
        TokensError: the token file cannot be used.
        TlsError: the certificate, its key or the client authorities cannot be used.

    """
    group = group or group_of(settings, 1)
    metrics = _metrics(settings)
    authentication, tls = _access(settings, metrics, group)
    max_batch_size = settings.max_batch_size or factory.default_batch_size(settings.device)
    async with contextlib.AsyncExitStack() as stack:
        traces = await stack.enter_async_context(tracing.started(settings.trace_receiver))
        pool = CpuPool(_cores(group.size))
        stack.callback(pool.close)
        batcher = await stack.enter_async_context(_batcher(settings, predictor, max_batch_size, metrics, hang_seconds))
        readiness = _readiness(batcher, pool, metrics, group)
        scrape = Scrape(metrics, group)
        stack.enter_context(scrape.answering())
        side_outputs = SideOutputs(settings.weights_path) if settings.maps else None
        segmenter = _segmenter(
            settings, batcher, pool, metrics, traces, side_outputs, predictor.model.input_size, group
        )
        model_slot = ModelSlot(
            *(batcher, predictor.model, load or functools.partial(load_predictor, settings), side_outputs, metrics),
            max_batch_size=max_batch_size,
            processes=group.size,
        )
        del predictor  # only the batcher may hold it, so that a hot reload frees it
        yield Service(
            settings,
            model_slot,
            max_batch_size,
            _max_queue_size(settings, group),
            segmenter,
            _streams(settings, segmenter, metrics, group),
            _archives(settings, max_batch_size, segmenter, pool, readiness, group),
            readiness,
            metrics,
            scrape,
            Calls(authentication, readiness, metrics, traces, timeout_seconds=settings.request_timeout_ms / 1e3),
            group,
            tls,
        )


async def warm_up(service: Service, predictor: Predictor) -> None:
    """Run every batch size and the CPU stages once, then accept requests (``Phase.SERVING``).

    Raises:
        TimeoutError: the device did not finish within ``PREPARE_SECONDS``.

    """
    async with asyncio.timeout(PREPARE_SECONDS):
        await in_device_thread(predictor.warm_up, service.max_batch_size)
    await asyncio.to_thread(warm_up_cpu)
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
        probe=np.full((3, predictor.model.input_size, predictor.model.input_size), 128, np.uint8),  # grey
        on_batch=metrics.batch_size.observe,
    )


def _readiness(batcher: Batcher[Pixels, Inference], pool: CpuPool, metrics: Metrics, group: Group) -> Readiness:
    readiness = Readiness(batcher.dead, pool.is_responsive, group)
    metrics.ready.set_function(lambda: readiness.service_ready)
    for priority in Priority:
        metrics.stuck_threads.labels(priority.name.lower()).set_function(functools.partial(pool.stuck, priority))
    return readiness


def _segmenter(
    settings: Settings,
    batcher: Batcher[Pixels, Inference],
    pool: CpuPool,
    metrics: Metrics,
    traces: Tracing,
    side_outputs: SideOutputs | None,
    input_size: int,
    group: Group,
) -> Segmenter:
    return Segmenter(
        batcher,
        Admission(_max_queue_size(settings, group)),
        pool,
        metrics,
        traces,
        max_image_pixels=settings.max_image_pixels,
        input_size=input_size,
        unpack=recognition.unpacked,
        side_outputs=side_outputs,
    )


def _streams(settings: Settings, segmenter: Segmenter, metrics: Metrics, group: Group) -> Streams:
    return Streams(
        segmenter,
        metrics,
        places=group.streams,
        window=settings.stream_window,
        frame_timeout=settings.request_timeout_ms / 1e3,
        unread_timeout=UNREAD_SECONDS,
    )


def _archives(
    settings: Settings, max_batch_size: int, segmenter: Segmenter, pool: CpuPool, readiness: Readiness, group: Group
) -> Archives:
    return Archives(
        segmenter,
        readiness,
        places=group.archives,
        # Two batches, so that the device is never idle; at most half of the queue, so that other requests find room.
        at_once=max(1, min(2 * max_batch_size, _max_queue_size(settings, group) // 2)),
        check_threads=pool.check_archives,
    )


def _access(settings: Settings, metrics: Metrics, group: Group) -> tuple[Authentication, RenewableTls | None]:
    """Return who may call and the certificates, if TLS is on; the metrics tell whether both are current."""
    files = of_server(settings)
    authentication = Authentication(
        settings.api_tokens_file,
        rate_limit=settings.rate_limit,
        concurrency=settings.token_concurrency,
        accounts=group.accounts,
    )
    tls = RenewableTls(files) if files else None
    _watch_access(metrics, authentication, tls)
    return authentication, tls


def _watch_access(metrics: Metrics, authentication: Authentication, tls: RenewableTls | None) -> None:
    metrics.tokens_current.set_function(authentication.current)
    metrics.token_end.set_function(authentication.next_end)
    if tls is not None:
        metrics.certificates_current.set_function(lambda: tls.current)
        for name in tls.ends:
            metrics.certificate_end.labels(name).set_function(functools.partial(_end_of, tls, name))


def _end_of(tls: RenewableTls, certificate: str) -> float:
    return tls.ends[certificate]


def _metrics(settings: Settings) -> Metrics:
    metrics, device = Metrics(), factory.resolve_device(settings.device)
    if device != "cpu":
        from model.engines.cuda import device_metrics  # imports PyTorch, which a CPU service does without

        metrics.gpu_utilization.labels(device).set_function(lambda: device_metrics.utilization(device))
        metrics.gpu_memory.labels(device).set_function(lambda: device_metrics.memory_used(device))
    return metrics


def group_of(settings: Settings, processes: int) -> Group:
    """Return what so many processes of a service will share."""
    return Group(processes, streams=settings.max_streams, archives=settings.max_archives)


def _cores(processes: int) -> int | None:
    """Return how many threads compute in this process, which has its own cores; None if it is alone."""
    return usable_cores(processes=processes) if processes > 1 else None


def _max_queue_size(settings: Settings, group: Group) -> int:
    """Return how many requests may wait in this process: a share, since it also has a share of the cores."""
    return math.ceil(settings.max_queue_size / group.size)


def _hang_seconds(settings: Settings) -> float:
    """Return after how many seconds a call counts as hung: at half a timeout, the frames behind it still have time."""
    return max(HANG_SECONDS, settings.request_timeout_ms / 2e3)
