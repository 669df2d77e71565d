"""What a scrape of ``/metrics`` says, in the families of the clients' books."""

import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

TRANSPORTS = ("rest", "grpc", "grpc-stream", "websocket")
LABEL = re.compile(r'(\w+)="([^"]*)"')
FAMILIES = (*TRANSPORTS, "rejected", "received", "frames", "work")
COUNTED = {  # the family of each counter, and the label with its code; or the code itself, if there is only one
    "pranet_requests_total": ("", "code"),  # the family is the transport
    "pranet_frames_received_total": ("received", "frame"),
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
    """Read Prometheus' text of this service, on one pass: a full parser keeps the clients waiting."""
    counts: dict[str, Counter[str]] = {family: Counter() for family in FAMILIES}
    gauges = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        series, _, number = line.rpartition(" ")
        name, _, rest = series.partition("{")
        if name in COUNTED:
            family, label = COUNTED[name]
            labels = dict(LABEL.findall(rest))
            counts[family or labels["transport"]][labels.get(label, label)] += round(float(number))
        elif name == "pranet_weights_reloads_total":
            gauges[f"reloads {dict(LABEL.findall(rest))['outcome']}"] = float(number)
        elif not rest:
            gauges[name] = float(number)
    return Scrape(began, ended, counts, gauges)


async def scraped(get: Callable[[], Awaitable[str]]) -> Scrape:
    """Scrape now."""
    began = time.monotonic()
    text = await get()
    return parsed(text, began, time.monotonic())
