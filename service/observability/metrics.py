"""Prometheus metrics of one service, in seconds and bytes; each service has its own registry."""

import math
import re
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from service.errors import ServiceError, causes
from service.observability.stage_times import STAGES

# Bucket bounds, dense where frame times lie. They include the frame times at 60, 30 and 25 fps, and 120 ms, the
# annotation delay of a marketed colonoscopy CADe (FDA DEN200055).
SECONDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.0125, 0.0167, 0.02, 0.025, 0.0333, 0.04, 0.05,
    0.065, 0.08, 0.1, 0.12, 0.16, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
OTHER_VERSION = re.compile(r";\s*version=(?!\s*(0\.0\.4|1\.0\.0)\s*(;|$))")  # than the formats have
FPS_WINDOW_SECONDS = 5.0
MOST_SLOTS = 256  # of streams whose counters begin at 0; each has eight, of some 500 bytes
OUTCOMES = ("answered", "stale", "deadline", "overload", "failed", "abandoned")  # of a frame in a stream


# Without this, every counter and histogram has a series _created, which Prometheus stores as one more gauge.
disable_created_metrics()  # type: ignore[no-untyped-call]


class FrameRate(deque[float]):
    """Times of the latest frames; append ``time.monotonic()`` when a frame is answered. Clocks may be set meanwhile."""

    MOST = 1 << 17  # frames kept, which bounds the memory: 26,000 per second

    def __init__(self) -> None:
        super().__init__(maxlen=self.MOST)

    @property
    def last(self) -> float:
        """Unix time of the last frame, seconds; 0 before the first."""
        return time.time() - (time.monotonic() - self[-1]) if self else 0.0

    def per_second(self, since: float = -math.inf) -> float:
        """Return the mean rate over the window that ends now, frames per second.

        Args:
            since: a time of ``time.monotonic``, seconds, before which no frame came; the window begins no sooner.

        """
        now, frames = time.monotonic(), list(self)
        seconds = min(FPS_WINDOW_SECONDS, now - since)
        return (len(frames) - bisect_left(frames, now - seconds)) / seconds if seconds > 0 else 0.0


class Metrics:
    """All metrics that the service exports, and their registry.

    Series whose labels are known beforehand begin at 0. Prometheus sees no increase in a series that begins at 1.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._of_requests(self.registry)
        self._of_health(self.registry)
        self._of_access(self.registry)
        self._of_the_device(self.registry)
        self._of_streams(self.registry)
        self._of_processes(self.registry)

    def _of_requests(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "pranet_requests",
            "Finished requests by transport and status code.",
            ("transport", "code"),
            registry=registry,
        )
        self.request_duration = Histogram(
            "pranet_request_duration_seconds",
            "Time from a request's arrival to its answer, or to the end of a stream.",
            ("transport",),
            buckets=SECONDS,
            registry=registry,
        )
        self.stage_duration = Histogram(
            "pranet_stage_duration_seconds",
            "Time of each stage of a frame.",
            ("stage",),
            buckets=SECONDS,
            registry=registry,
        )
        self.frame_duration = Histogram(
            "pranet_frame_duration_seconds",
            "Time from a frame's acceptance to its outcome: answered, failed, or abandoned by its client.",
            ("outcome",),
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "pranet_batch_size",
            "Frames in each batch that is sent to the device.",
            buckets=BATCH_SIZES,
            registry=registry,
        )
        self.queue_depth = Gauge("pranet_queue_depth", "Accepted frames that wait for the device.", registry=registry)
        self.in_flight = Gauge("pranet_in_flight", "Accepted frames that are not answered yet.", registry=registry)
        self.rejected = Counter(
            "pranet_rejected",
            "Refused and failed requests, pictures of archives and frames of streams, by cause.",
            ("reason",),
            registry=registry,
        )
        for cause in causes():
            self.rejected.labels(cause.slug)
        for stage in STAGES:
            self.stage_duration.labels(stage)
        for outcome in ("answered", "failed", "abandoned"):
            self.frame_duration.labels(outcome)
        self.decodes = Counter("pranet_decodes", "Pictures whose decoding has started.", registry=registry)
        self.frame_rate = FrameRate()
        fps = Gauge("pranet_fps", "Frames answered per second over the last 5 s.", registry=registry)
        fps.set_function(self.frame_rate.per_second)

    def _of_health(self, registry: CollectorRegistry) -> None:
        self.ready = Gauge(
            "pranet_ready", "1 while the service accepts new work, else 0; the same as /readyz.", registry=registry
        )
        self.stuck_threads = Gauge(
            "pranet_stuck_threads",
            "Threads that have decoded or drawn one picture for 30 s, by its priority: live, single or archive.",
            ("priority",),
            registry=registry,
        )

    def _of_access(self, registry: CollectorRegistry) -> None:
        self.tokens_current = Gauge(
            "pranet_tokens_current",
            "1 while the tokens in force are those of the tokens file, or none is needed; 0 while the file cannot be "
            "read or used, so that a removed token may still be valid.",
            registry=registry,
        )
        self.tokens_current.set(1)
        self.token_end = Gauge(
            "pranet_token_end_timestamp_seconds",
            "When the next valid token ends, in seconds since 1970; +Inf if none does.",
            registry=registry,
        )
        self.token_end.set(math.inf)
        self.certificates_current = Gauge(
            "pranet_certificates_current",
            "1 while the certificate files in use are those last read, or TLS is off; 0 after a renewal that failed.",
            registry=registry,
        )
        self.certificates_current.set(1)
        self.certificate_end = Gauge(
            "pranet_certificate_end_timestamp_seconds",
            "When the first certificate of the server's chain, or of the authorities of clients, ends, in seconds "
            "since 1970.",
            ("certificate",),
            registry=registry,
        )

    def _of_the_device(self, registry: CollectorRegistry) -> None:
        self.model_info = Gauge(
            "pranet_model_info",
            "The weights in use; always 1.",
            ("model_id", "weights_sha256", "engine", "device", "precision"),
            registry=registry,
        )
        self.reloads = Counter(
            "pranet_weights_reloads",
            "Reloads of the weights file by outcome: taken, or refused, which keeps the old weights.",
            ("outcome",),
            registry=registry,
        )
        for outcome in ("taken", "refused"):
            self.reloads.labels(outcome)
        self.weights_current = Gauge(
            "pranet_weights_current",
            "0 after a reload of the weights file that was refused, else 1.",
            registry=registry,
        )
        self.weights_current.set(1)
        self.gpu_utilization = Gauge(
            "pranet_gpu_utilization_ratio", "Fraction of time in which the GPU was busy.", ("gpu",), registry=registry
        )
        self.gpu_memory = Gauge(
            "pranet_gpu_memory_used_bytes", "GPU memory in use by all processes.", ("gpu",), registry=registry
        )

    def _of_streams(self, registry: CollectorRegistry) -> None:
        self.streams_active = Gauge("pranet_streams_active", "Open video streams.", registry=registry)
        self.frames_received = Counter(
            "pranet_frames_received", "Frames received on streams, by stream slot.", ("slot",), registry=registry
        )
        self.frames = Counter(
            "pranet_frames",
            "Frames of streams by outcome: answered, stale, deadline, overload, failed, or abandoned because the "
            "client left or did not read.",
            ("slot", "outcome"),
            registry=registry,
        )
        self.frames_reused = Counter(
            "pranet_frames_reused",
            "Frames of streams that were answered from the logits of an earlier frame that shows the same.",
            ("slot",),
            registry=registry,
        )
        self.frame_age = Histogram(
            "pranet_stream_frame_age_seconds",
            "Time from capture to answer, without the constant part of the network delay, in streams of live video "
            "(policy latest).",
            ("slot",),
            buckets=SECONDS,
            registry=registry,
        )
        self.frame_gap = Histogram(
            "pranet_stream_gap_seconds",
            "Time between consecutive masks of a stream.",
            ("slot",),
            buckets=SECONDS,
            registry=registry,
        )

    def _of_processes(self, registry: CollectorRegistry) -> None:
        self.process_up = Gauge(
            "pranet_process_up",
            "1 for each process of the service that has answered this scrape, else 0; then its counters are those of "
            "its last answer, and its gauges are left out.",
            ("process",),
            registry=registry,
        )
        self.process_replacements = Counter(
            "pranet_process_replacements", "Processes that took the place of one that had ended.", registry=registry
        )

    def reject(self, error: ServiceError | type[ServiceError]) -> None:
        """Count an error: of a call, of a picture in an archive, or of a frame or request in a stream."""
        self.rejected.labels(error.slug).inc()

    def initialise_stream_series(self, slots: int) -> None:
        """Begin the counters of so many streams at 0, of ``MOST_SLOTS`` at most."""
        for slot in map(str, range(min(slots, MOST_SLOTS))):
            self.frames_received.labels(slot)
            self.frames_reused.labels(slot)
            for outcome in OUTCOMES:
                self.frames.labels(slot, outcome)

    def exposition(self, accept: str = "", families: Sequence[Metric] | None = None) -> tuple[bytes, str]:
        """Return all metrics and their content type: OpenMetrics if ``accept`` asks for it, else Prometheus' text.

        Args:
            accept: the elements of an ``Accept`` that are not refused, the preferred one first.
            families: those of all processes, see ``scrape``; by default those of this process.

        """
        # ``choose_encoder`` repeats any version, and fails on one that is not a number.
        known = [each for each in accept.split(",") if not OTHER_VERSION.search(each)]
        encode, content_type = choose_encoder(",".join(known))
        return encode(self.registry if families is None else _Families(families)), content_type


class _Families(tuple[Metric, ...]):
    """Families in the place of a registry."""

    def collect(self) -> tuple[Metric, ...]:
        return self
