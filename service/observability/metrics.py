"""Prometheus metrics of one service, in seconds and bytes; each service has its own registry."""

import time
from bisect import bisect_left
from collections import deque

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest

# Bucket bounds, dense where frame times lie. They include the frame times at 60, 30 and 25 fps, and 120 ms, the
# annotation delay of a marketed colonoscopy CADe (FDA DEN200055).
SECONDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.0125, 0.0167, 0.02, 0.025, 0.0333, 0.04, 0.05,
    0.065, 0.08, 0.1, 0.12, 0.16, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
FPS_WINDOW_SECONDS = 5.0
OUTCOMES = ("answered", "stale", "deadline", "overload", "failed", "abandoned")  # of a frame in a stream


class FrameRate(deque[float]):
    """Unix times of the latest frames, in seconds; append the time when a frame is answered."""

    MOST = 1 << 17  # frames kept, which bounds the memory: 26,000 per second

    def __init__(self) -> None:
        super().__init__(maxlen=self.MOST)

    @property
    def last(self) -> float:
        """Unix time of the last frame, seconds; 0 before the first."""
        return self[-1] if self else 0.0

    def per_second(self) -> float:
        """Return the mean rate over the window that ends now, frames per second."""
        oldest = time.time() - FPS_WINDOW_SECONDS
        frames = list(self)
        return (len(frames) - bisect_left(frames, oldest)) / FPS_WINDOW_SECONDS


class Metrics:
    """All metrics that the service exports, and their registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._of_requests(self.registry)
        self._of_the_device(self.registry)
        self._of_streams(self.registry)

    def _of_requests(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "pranet_requests",
            "Finished requests by transport and status code.",
            ("transport", "code"),
            registry=registry,
        )
        self.request_duration = Histogram(
            "pranet_request_duration_seconds",
            "Time from a request's arrival to its answer.",
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
            "pranet_rejected", "Refused and failed requests by cause.", ("reason",), registry=registry
        )
        self.decodes = Counter("pranet_decodes", "Pictures whose decoding has started.", registry=registry)
        self.frame_rate = FrameRate()
        fps = Gauge("pranet_fps", "Frames answered per second over the last 5 s.", registry=registry)
        fps.set_function(self.frame_rate.per_second)
        self.ready = Gauge(
            "pranet_ready", "1 while the service accepts new work, else 0; the same as /readyz.", registry=registry
        )
        self.tokens_current = Gauge(
            "pranet_tokens_current",
            "1 while the tokens in force are those of the tokens file, or none is needed; 0 while the file cannot be "
            "read or used, so that a removed token may still be valid.",
            registry=registry,
        )
        self.tokens_current.set(1)

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
            self.reloads.labels(outcome)  # exported from the start, so that the first refusal is an increase
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
        self.frame_age = Histogram(
            "pranet_stream_frame_age_seconds",
            "Time from capture to answer, without the constant part of the network delay.",
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

    def stream(self, slot: int) -> "StreamMetrics":
        """Return the metrics of the stream in ``slot`` (0 to MAX_STREAMS - 1)."""
        return StreamMetrics(self, str(slot))

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class StreamMetrics:
    """Metrics of one stream; once it has ended, received = answered + dropped + failed + abandoned."""

    def __init__(self, metrics: Metrics, slot: str) -> None:
        self._received = metrics.frames_received.labels(slot)
        self._age = metrics.frame_age.labels(slot)
        self._gap = metrics.frame_gap.labels(slot)
        self._outcomes = {name: metrics.frames.labels(slot, name) for name in OUTCOMES}
        self._open = 0  # received, without an outcome yet
        self._last_mask: float | None = None  # monotonic clock, seconds

    def received(self) -> None:
        """Count a frame that the client has sent."""
        self._open += 1
        self._received.inc()

    def answered(self, age: float) -> None:
        """Count a mask that was sent ``age`` seconds after the capture of its frame."""
        now = time.monotonic()
        self._age.observe(age)
        if self._last_mask is not None:
            self._gap.observe(now - self._last_mask)
        self._last_mask = now
        self.count("answered")

    def count(self, outcome: str) -> None:
        """Count the outcome of a frame, one of ``OUTCOMES``."""
        self._open -= 1
        self._outcomes[outcome].inc()

    def close(self, outcome: str) -> None:
        """Count the same outcome for all frames that are open when the stream ends."""
        self._outcomes[outcome].inc(self._open)
        self._open = 0
