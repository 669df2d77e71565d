"""What a scrape of ``/metrics`` says, in the families of the clients' books."""

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

TRANSPORTS = ("rest", "grpc", "grpc-stream", "websocket")
FAMILIES = (*TRANSPORTS, "rejected", "received", "frames", "work")
BY_LABEL = {
    "pranet_rejected_total": ("rejected", "reason"),
    "pranet_frames_total": ("frames", "outcome"),
    "pranet_frame_duration_seconds_count": ("work", "outcome"),
}


@dataclass(frozen=True)
class Scrape:
    """The counters at a moment between two times (``time.monotonic``, seconds), and the other samples."""

    began: float
    ended: float
    counts: dict[str, Counter[str]]  # by family and code
    gauges: dict[str, float]  # samples without labels, and the reloads by outcome

    @property
    def open_frames(self) -> int:
        """Frames of streams that are received and have no outcome yet."""
        return self.counts["received"].total() - self.counts["frames"].total()


def parsed(text: str, began: float, ended: float) -> Scrape:
    """Read Prometheus' text."""
    counts: dict[str, Counter[str]] = {family: Counter() for family in FAMILIES}
    gauges = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels, number = sample.labels, sample.value
            if sample.name == "pranet_requests_total":
                counts[labels["transport"]][labels["code"]] += int(number)
            elif sample.name == "pranet_frames_received_total":
                counts["received"]["frame"] += int(number)
            elif sample.name in BY_LABEL:
                name, label = BY_LABEL[sample.name]
                counts[name][labels[label]] += int(number)
            elif sample.name == "pranet_weights_reloads_total":
                gauges[f"reloads {labels['outcome']}"] = number
            elif not labels:
                gauges[sample.name] = number
    return Scrape(began, ended, counts, gauges)


async def scraped(get: Callable[[], Awaitable[str]]) -> Scrape:
    """Scrape now."""
    began = time.monotonic()
    text = await get()
    return parsed(text, began, time.monotonic())
